package disk

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/kms"
)

const nextBoot = "b0000000-0000-0000-0000-000000000002"

func TestWishedDisksAreAttachedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		boot     string
		o        AttachOptions
		attached bool
	}{
		"same boot":              {thisBoot, AttachOptions{UID: 5, GID: 6}, true},
		"same boot, read-only":   {thisBoot, AttachOptions{UID: 5, GID: 6, ReadOnly: true}, true},
		"after a reboot":         {nextBoot, AttachOptions{UID: 5, GID: 6}, false},
		"after a reboot, wished": {nextBoot, AttachOptions{UID: 5, GID: 6, AtBoot: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d, other := b.encrypted("a"), b.encrypted("never-attached")
			if _, err := b.Attach(t.Context(), project, d.ID, c.o); err != nil {
				t.Fatal(err)
			}
			b.restart(c.boot)
			a := b.pub.get(d.ID)
			if (a != nil) != c.attached || b.pub.get(other.ID) != nil {
				t.Fatalf("attached: %v", a)
			}
			i := b.show(d.ID)
			if !c.attached {
				if i.State != StateAvailable || i.Wish != nil {
					t.Fatalf("%+v", i)
				}
				return
			}
			if a.UID != 5 || a.GID != 6 || a.ReadOnly != c.o.ReadOnly || i.Wish.BootID != c.boot || i.Wish.AtBoot != c.o.AtBoot {
				t.Fatalf("%+v, %+v", a, i.Wish)
			}
		})
	}
}

func TestDetachedAndNoReattachStayDetached(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.attach(d.ID)
	b.detach(d.ID)
	b.restart(thisBoot)
	if b.pub.get(d.ID) != nil {
		t.Fatal("a detached disk was attached")
	}
	b.attach(d.ID)
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.open(thisBoot)
	if err := b.Recover(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if b.pub.get(d.ID) != nil || b.show(d.ID).Wish != nil {
		t.Fatal("attached in spite of --no-reattach")
	}
}

func TestReattachAsksTheKMS(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.attach(d.ID)
	b.keys.Fail(kms.ErrDisabled)
	b.restart(thisBoot)
	if i := b.show(d.ID); i.State != StateAvailable || i.Wish != nil || !strings.Contains(i.Reason, "disabled") {
		t.Fatalf("%+v", i)
	}
}

// TestReattachWaitsForTheKMS: a KMS that comes later than the daemon.
func TestReattachWaitsForTheKMS(t *testing.T) {
	b := newBench(t)
	d, given := b.encrypted("a"), b.encrypted("given-up")
	b.attach(d.ID)
	b.attach(given.ID)
	b.keys.Fail(kms.ErrUnavailable)
	b.restart(thisBoot)
	if i := b.show(d.ID); i.State != StateAvailable || i.Wish == nil || i.Reason == "" {
		t.Fatalf("%+v", i)
	}
	b.until("given up", func() bool { return b.Detach(t.Context(), project, given.ID) == nil })
	b.keys.Fail(nil)
	b.until("attached", func() bool { return b.show(d.ID).State == StateInUse })
	if i := b.show(given.ID); i.State != StateAvailable || i.Wish != nil {
		t.Fatalf("%+v", i)
	}
}

// TestSlowKMSDoesNotHoldUpTheStart: the daemon answers before its disks are attached again.
func TestSlowKMSDoesNotHoldUpTheStart(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.attach(d.ID)
	release := b.keys.Hang()
	defer release()
	b.restart(thisBoot)
	if i := b.show(d.ID); i.State != StateAttaching {
		t.Fatalf("state %s", i.State)
	}
	release()
	b.until("attached", func() bool { return b.show(d.ID).State == StateInUse })
}

// TestStoppedWhileAttachingAgain: the wish outlives a daemon that is stopped too early.
func TestStoppedWhileAttachingAgain(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.attach(d.ID)
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.open(thisBoot)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	release := b.keys.Hang()
	defer release()
	if err := b.Recover(stopped, false); err != nil {
		t.Fatal(err)
	}
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	release()
	b.open(thisBoot)
	if err := b.Recover(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if b.show(d.ID).State != StateInUse {
		t.Fatalf("%+v", b.show(d.ID))
	}
}

func TestUnfinishedDeleteIsFinished(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	e := b.disks[d.ID]
	r, err := b.move(e, evDelete, func(r *Record) error { r.Job = newJob(JobDelete, r, b.now()); return nil })
	if err != nil {
		t.Fatal(err)
	}
	b.restart(thisBoot)
	b.expectNothing()
	if j, err := b.Job(project, r.Job.ID); err != nil || j.Status != JobSuccess {
		t.Fatalf("%+v, %v", j, err)
	}
}

// TestDeleteWipesTheHeader: a copy of the inode that outlives the disk has no wrapped key.
func TestDeleteWipesTheHeader(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	kept := filepath.Join(b.dir, "kept.img")
	if err := os.Link(b.imagePath(d.ID), kept); err != nil {
		t.Fatal(err)
	}
	j, err := b.Delete(project, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if j = b.wait(j); j.Status != JobSuccess {
		t.Fatalf("%+v", j)
	}
	p, err := os.ReadFile(kept)
	if err != nil || len(p) != luks2.DataOffset+int(d.Size) {
		t.Fatalf("%d bytes, %v", len(p), err)
	}
	if !bytes.Equal(p[:luks2.DataOffset], make([]byte, luks2.DataOffset)) {
		t.Fatal("something of the header is left")
	}
}

// TestDeleteThatFailsIsTold: what stands in the way is named, and deleting again works.
func TestDeleteThatFailsIsTold(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	alien := b.imageDir(d.ID) + "/notes.txt"
	if err := os.WriteFile(alien, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := b.Delete(project, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if j = b.wait(j); j.Status != JobFail {
		t.Fatalf("%+v", j)
	}
	if i := b.show(d.ID); i.State != StateErrorDeleting || !strings.Contains(i.Reason, "not empty") {
		t.Fatalf("%+v", i)
	}
	if err := os.Remove(alien); err != nil {
		t.Fatal(err)
	}
	if j, err = b.Delete(project, d.ID); err != nil {
		t.Fatal(err)
	}
	if j = b.wait(j); j.Status != JobSuccess {
		t.Fatalf("%+v", j)
	}
	b.expectNothing()
}
