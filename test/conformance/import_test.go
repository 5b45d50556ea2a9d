package conformance

import (
	"os"
	"path/filepath"
	"testing"

	"sealdisk/test/testbed"
)

// A copied disk directory comes in by import, where the KMS has its key; its
// data is there.
func TestImport(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	nbdsh(t, uri, "h.pwrite(b'moved' * 1000, 4096)\nh.flush()")
	d.Must("disk", "detach", "vol")
	dir := filepath.Join(t.TempDir(), d.ID("vol"))
	testbed.Succeed(t, "cp", "-r", "--sparse=always", filepath.Dir(d.Image("vol")), dir)
	d.Refused(4, "disk", "import", dir, "--name", "twin") // the original is still there
	d.Must("disk", "delete", "vol", "--yes")
	d.Must("disk", "import", dir, "--name", "back")
	uri = d.Attach("back")
	nbdsh(t, uri, "assert h.pread(5000, 4096) == b'moved' * 1000")
}

// A stranger's disk, a forged one and a plain file do not come in.
func TestImportRefuses(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	id := d.ID("vol")
	dir := filepath.Join(t.TempDir(), id)
	image := filepath.Join(dir, "disk.img")
	testbed.Succeed(t, "cp", "-r", "--sparse=always", filepath.Dir(d.Image("vol")), dir)
	stranger := testbed.Start(t)
	if r := stranger.CLI("disk", "import", dir, "--name", "stolen"); r.Code == 0 {
		t.Error("a disk came in without its key")
	}
	d.Must("disk", "delete", "vol", "--yes")
	rewrite(t, image, func(_ []byte, area map[string]any) {
		in(t, area, "segments", "0")["sector_size"] = 512
	})
	d.Refused(10, "disk", "import", dir, "--name", "forged")
	if err := os.WriteFile(image, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Refused(10, "disk", "import", dir, "--name", "zeros")
	d.Refused(3, "disk", "show", "forged")
}
