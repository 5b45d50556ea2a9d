package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/disk/disktest"
	"sealdisk/pkg/kms"
)

// exported makes a disk with want in it, in a daemon of its own, and returns the disk's directory.
func exported(t *testing.T, keys *disktest.Keys, want []byte) (Info, string) {
	b := &bench{t: t, dir: t.TempDir(), keys: keys}
	b.open(thisBoot)
	d := b.create(CreateOptions{Name: "travels", Encrypted: true, Size: 8 << 20})
	if err := b.attach(d.ID).Device.WriteAt(bytes.Clone(want), 1<<20, 0); err != nil {
		t.Fatal(err)
	}
	b.detach(d.ID)
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, b.imageDir(d.ID)
}

func (b *bench) importNow(o ImportOptions) Job {
	b.t.Helper()
	o.Project = project
	j, err := b.Import(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.wait(j)
}

func TestImport(t *testing.T) {
	want := pattern(6000, 4)
	for name, place := range map[string]func(b *bench, id, dir string) string{
		"directory": func(_ *bench, _, dir string) string { return dir },
		"file":      func(_ *bench, _, dir string) string { return filepath.Join(dir, imageName) },
		"symbolic link": func(b *bench, _, dir string) string {
			p := filepath.Join(b.t.TempDir(), "link")
			if err := os.Symlink(dir, p); err != nil {
				b.t.Fatal(err)
			}
			return p
		},
		"in place": func(b *bench, id, dir string) string {
			if err := os.CopyFS(b.imageDir(id), os.DirFS(dir)); err != nil {
				b.t.Fatal(err)
			}
			if err := os.Chmod(b.imagePath(id), 0o600); err != nil {
				b.t.Fatal(err)
			}
			return b.imageDir(id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d, dir := exported(t, b.keys, want)
			path := place(b, d.ID, dir)
			if j := b.importNow(ImportOptions{Path: path, Name: "back"}); j.Status != JobSuccess || j.Type != JobImport {
				t.Fatalf("%+v", j)
			}
			i := b.show(d.ID)
			if i.Name != "back" || i.Size != d.Size || i.Encryption.KeyID != testKey || i.Encryption.MinGeneration != 1 || !i.Encryption.Holes || i.Adopted {
				t.Fatalf("%+v %+v", i.Record, i.Encryption)
			}
			got := make([]byte, len(want))
			if err := b.attach(d.ID).Device.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("other data (%v)", err)
			}
			b.detach(d.ID)
			_, err := b.Import(t.Context(), ImportOptions{Project: project, Path: dir, Name: "again"})
			wantClass(t, err, api.ClassConflict)
		})
	}
}

func TestImportKeepsHoles(t *testing.T) {
	b := newBench(t)
	d, dir := exported(t, b.keys, pattern(4096, 4))
	b.importNow(ImportOptions{Path: dir})
	var st unix.Stat_t
	if err := unix.Stat(b.imagePath(d.ID), &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; used > 4<<20 {
		t.Fatalf("%d bytes are allocated for 4 KiB of data", used)
	}
	if b.show(d.ID).Name != "travels" { // from the header
		t.Fatal(b.show(d.ID).Name)
	}
}

func TestImportIsRefused(t *testing.T) {
	scratch := func(t *testing.T, n int) string {
		p := filepath.Join(t.TempDir(), "raw.img")
		if err := os.WriteFile(p, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	forge := func(t *testing.T, dir string, change func(*luks2.Header)) {
		f, err := os.OpenFile(filepath.Join(dir, imageName), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h, _, err := luks2.Read(f)
		if err != nil {
			t.Fatal(err)
		}
		change(h)
		if err := luks2.Write(f, h); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, b *bench, dir string) ImportOptions
		class   api.Class
		hint    string
	}{
		"relative path":   {func(*testing.T, *bench, string) ImportOptions { return ImportOptions{Path: "x"} }, api.ClassUsage, ""},
		"nothing there":   {func(*testing.T, *bench, string) ImportOptions { return ImportOptions{Path: "/nonexistent/x"} }, api.ClassNotFound, ""},
		"empty directory": {func(t *testing.T, _ *bench, _ string) ImportOptions { return ImportOptions{Path: t.TempDir()} }, api.ClassNotFound, ""},
		"no file":         {func(*testing.T, *bench, string) ImportOptions { return ImportOptions{Path: "/dev/null"} }, api.ClassUsage, ""},
		"raw without demand": {func(t *testing.T, _ *bench, _ string) ImportOptions {
			return ImportOptions{Path: scratch(t, 8192), Name: "r"}
		}, api.ClassCorrupt, ""},
		"LUKS2 as raw": {func(_ *testing.T, _ *bench, dir string) ImportOptions {
			return ImportOptions{Path: dir, Unencrypted: true}
		}, api.ClassUsage, "--unencrypted"},
		"raw without a name": {func(t *testing.T, _ *bench, _ string) ImportOptions {
			return ImportOptions{Path: scratch(t, 8192), Unencrypted: true}
		}, api.ClassUsage, ""},
		"empty raw": {func(t *testing.T, _ *bench, _ string) ImportOptions {
			return ImportOptions{Path: scratch(t, 0), Unencrypted: true, Name: "r"}
		}, api.ClassUsage, ""},
		"bad name": {func(_ *testing.T, _ *bench, dir string) ImportOptions { return ImportOptions{Path: dir, Name: "a/b"} }, api.ClassUsage, ""},
		"taken name": {func(_ *testing.T, b *bench, dir string) ImportOptions {
			b.encrypted("travels")
			return ImportOptions{Path: dir}
		}, api.ClassConflict, "name"},
		"KMS unreachable": {func(_ *testing.T, b *bench, dir string) ImportOptions {
			b.keys.Fail(kms.ErrUnavailable)
			return ImportOptions{Path: dir}
		}, api.ClassKMSUnreachable, ""},
		"KMS without the key": {func(_ *testing.T, b *bench, dir string) ImportOptions {
			b.keys.Fail(kms.ErrNotFound)
			return ImportOptions{Path: dir}
		}, api.ClassKeyUnusable, ""},
		"forged sector size": {func(t *testing.T, _ *bench, dir string) ImportOptions {
			forge(t, dir, func(h *luks2.Header) { h.SectorSize = 512 })
			return ImportOptions{Path: dir}
		}, api.ClassCorrupt, ""},
		"another project": {func(t *testing.T, _ *bench, dir string) ImportOptions {
			forge(t, dir, func(h *luks2.Header) { h.Token.Project = "other" })
			return ImportOptions{Path: dir}
		}, api.ClassUsage, "--project other"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			_, dir := exported(t, b.keys, pattern(512, 1))
			o := c.prepare(t, b, dir)
			o.Project = project
			_, err := b.Import(t.Context(), o)
			if e := wantClass(t, err, c.class); !strings.Contains(e.Hint, c.hint) {
				t.Fatalf("hint %q", e.Hint)
			}
			for _, i := range b.List(project) {
				if i.Job.Type == JobImport {
					t.Fatalf("a disk was made: %+v", i)
				}
			}
		})
	}
}

func TestImportRawPadsToASector(t *testing.T) {
	b := newBench(t)
	p := filepath.Join(t.TempDir(), "raw.img")
	want := pattern(5000, 2)
	if err := os.WriteFile(p, want, 0o600); err != nil {
		t.Fatal(err)
	}
	j := b.importNow(ImportOptions{Path: p, Unencrypted: true, Name: "raw"})
	if j.Status != JobSuccess {
		t.Fatalf("%+v", j)
	}
	if i := b.show(j.DiskID); i.Size != 8192 || i.Encryption != nil {
		t.Fatalf("%+v", i)
	}
	got := make([]byte, 8192)
	if err := b.attach(j.DiskID).Device.ReadAt(got, 0); err != nil || !bytes.Equal(got, append(want, make([]byte, 3192)...)) {
		t.Fatalf("other data (%v)", err)
	}
}

// TestImportRefusesAnAttachedImage: the image of a disk in use would be copied torn.
func TestImportRefusesAnAttachedImage(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.attach(d.ID)
	_, err := b.Import(t.Context(), ImportOptions{Project: project, Path: b.imageDir(d.ID), Name: "copy"})
	wantClass(t, err, api.ClassConflict)
}
