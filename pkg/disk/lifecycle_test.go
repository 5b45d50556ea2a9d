package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

func TestEncryptedDiskKeepsItsDataAcrossDetach(t *testing.T) {
	for _, o := range []CreateOptions{
		{Name: "plain-defaults", Encrypted: true},
		{Name: "small-sectors", Encrypted: true, SectorSize: 512, BlockSize: 4096},
		{Name: "no-discard", Encrypted: true, NoDiscard: true},
		{Name: "preallocated", Encrypted: true, Preallocate: true},
		{Name: "unencrypted"},
		{Name: "unencrypted-preallocated", Preallocate: true, NoDiscard: true},
	} {
		t.Run(o.Name, func(t *testing.T) {
			b := newBench(t)
			d := b.create(o)
			if d.State != StateAvailable || (d.Encryption != nil) != o.Encrypted {
				t.Fatalf("%+v", d)
			}
			a := b.attach(d.ID)
			if i := b.show(d.ID); i.State != StateInUse || !strings.HasPrefix(i.URI, "nbd+unix:///"+o.Name) || i.Wish == nil || i.Wish.UID != 7 {
				t.Fatalf("%+v", i)
			}
			if a.Device.Size() != d.Size {
				t.Fatalf("exported %d bytes, want exactly %d", a.Device.Size(), d.Size)
			}
			want := pattern(9000, 3)
			if err := a.Device.WriteAt(bytes.Clone(want), 4096*3, 0); err != nil {
				t.Fatal(err)
			}
			b.detach(d.ID)
			if i := b.show(d.ID); i.State != StateAvailable || i.URI != "" || i.Wish != nil {
				t.Fatalf("%+v", i)
			}
			image, err := os.ReadFile(b.imagePath(d.ID))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(image, want[:512]) == o.Encrypted {
				t.Fatalf("plaintext in the image: %t", !o.Encrypted)
			}
			if o.Encrypted && o.NoDiscard && bytes.Contains(image[luks2.DataOffset:], make([]byte, 512)) {
				t.Fatal("the image shows what is not allocated")
			}
			got := make([]byte, len(want))
			if err := b.attach(d.ID).Device.ReadAt(got, 4096*3); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read back wrong (%v)", err)
			}
			b.detach(d.ID)
		})
	}
}

func TestCreateRefusesBadInput(t *testing.T) {
	long := strings.Repeat("a", 65)
	for name, o := range map[string]CreateOptions{
		"empty name":        {Size: 4096},
		"long name":         {Name: long, Size: 4096},
		"path":              {Name: "../../etc", Size: 4096},
		"slash":             {Name: "a/b", Size: 4096},
		"dots":              {Name: "..", Size: 4096},
		"control character": {Name: "a\nb", Size: 4096},
		"option-like":       {Name: "-x", Size: 4096},
		"uuid":              {Name: testKey, Size: 4096},
		"size 0":            {Name: "a"},
		"negative size":     {Name: "a", Size: -4096},
		"odd size":          {Name: "a", Size: 4097},
		"huge":              {Name: "a", Size: 32769 << 30},
		"sector size":       {Name: "a", Size: 4096, Encrypted: true, SectorSize: 1024},
		"long description":  {Name: "a", Size: 4096, Description: strings.Repeat("d", 256)},
		"escape sequence":   {Name: "a", Size: 4096, Description: "\x1b[2J"},
		"block size":        {Name: "a", Size: 4096, BlockSize: 3},
		"key, unencrypted":  {Name: "a", Size: 4096, Key: "k"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			o.Project = project
			_, err := b.Create(t.Context(), o)
			wantClass(t, err, api.ClassUsage)
			b.expectNothing()
		})
	}
}

// expectNothing fails if there is a disk, or anything of one.
func (b *bench) expectNothing() {
	b.t.Helper()
	if l := b.List(project); len(l) != 0 {
		b.t.Fatalf("disks: %+v", l)
	}
	for _, dir := range []string{"disks", "catalog"} {
		if left, _ := filepath.Glob(filepath.Join(b.dir, dir, "*")); len(left) != 0 {
			b.t.Fatalf("left behind: %v", left)
		}
	}
}

func TestUnusableKeyLeavesNoDisk(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		class api.Class
		code  string
		hint  string
	}{
		"no agency":        {kms.ErrNoAgency, api.ClassDenied, "EVS.2143", "sealdisk agency grant --project default"},
		"disabled":         {kms.ErrDisabled, api.ClassKeyUnusable, "EVS.2040", "sealdisk key enable"},
		"pending deletion": {kms.ErrPendingDeletion, api.ClassKeyUnusable, "EVS.2040", "cancel-deletion"},
		"frozen":           {kms.ErrFrozen, api.ClassKeyUnusable, "EVS.2040", "renew"},
		"unknown":          {kms.ErrNotFound, api.ClassNotFound, "EVS.2105", "key list"},
		"denied":           {kms.ErrDenied, api.ClassDenied, "EVS.5403", "share"},
		"unreachable":      {kms.ErrUnavailable, api.ClassKMSUnreachable, "EVS.2044", "status"},
		"throttled":        {kms.ErrThrottled, api.ClassKMSUnreachable, "EVS.2044", "later"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.keys.Fail(fmt.Errorf("asking the KMS on a socket: %w", c.err))
			_, err := b.Create(t.Context(), CreateOptions{Project: project, Name: "a", Size: 4096, Encrypted: true})
			e := wantClass(t, err, c.class)
			if e.Code != c.code || !strings.Contains(e.Hint, c.hint) || !errors.Is(err, c.err) {
				t.Fatalf("code %s, hint %q, %v", e.Code, e.Hint, e.Err)
			}
			if c.class != api.ClassKMSUnreachable && strings.Contains(e.Message, "socket") {
				t.Fatalf("too much: %q", e.Message)
			}
			b.expectNothing()
			b.keys.Fail(nil)
			b.encrypted("a") // the name is free
		})
	}
}

func TestDisabledKeyRefusesAttachAndComesBack(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	a := b.attach(d.ID)
	b.keys.Fail(kms.ErrDisabled)
	if err := a.Device.WriteAt(pattern(4096, 1), 0, blockdev.FUA); err != nil {
		t.Fatalf("an attached disk stopped: %v", err)
	}
	b.detach(d.ID)
	_, err := b.Attach(t.Context(), project, d.ID, AttachOptions{})
	if e := wantClass(t, err, api.ClassKeyUnusable); !strings.Contains(e.Hint, testKey) {
		t.Fatalf("the hint does not name the key: %q", e.Hint)
	}
	if i := b.show(d.ID); i.State != StateAvailable || !strings.Contains(i.Reason, "disabled") {
		t.Fatalf("%+v", i)
	}
	b.keys.Fail(nil)
	b.attach(d.ID)
	if i := b.show(d.ID); i.Reason != "" {
		t.Fatalf("the old reason stays: %q", i.Reason)
	}
}

func TestDeleteAndDetachNeverAskTheKMS(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.attach(d.ID)
	b.keys.Fail(kms.ErrUnavailable)
	before := b.keys.Count()
	b.detach(d.ID)
	j, err := b.Delete(project, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if j = b.wait(j); j.Status != JobSuccess {
		t.Fatalf("%+v", j)
	}
	if n := b.keys.Count() - before; n != 0 {
		t.Fatalf("the KMS was asked %d times", n)
	}
	b.expectNothing()
}

func TestPublishFailureIsUndoneWholly(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.pub.err = os.ErrPermission
	_, err := b.Attach(t.Context(), project, d.ID, AttachOptions{})
	wantClass(t, err, api.ClassDenied)
	if i := b.show(d.ID); i.State != StateAvailable || i.Wish != nil {
		t.Fatalf("%+v", i)
	}
	b.pub.err = nil
	b.attach(d.ID) // the image was given back
}

func TestDisksOfAnotherProjectDoNotExist(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	_, err := b.Show("other", d.ID)
	wantClass(t, err, api.ClassNotFound)
	_, err = b.Attach(t.Context(), "other", d.ID, AttachOptions{})
	wantClass(t, err, api.ClassNotFound)
	_, err = b.Delete("other", d.ID)
	wantClass(t, err, api.ClassNotFound)
	_, err = b.Job("other", d.Job.ID)
	wantClass(t, err, api.ClassNotFound)
	if len(b.List("other")) != 0 {
		t.Fatal("listed")
	}
}
