package conformance

import (
	"os"
	"path/filepath"
	"testing"

	"sealdisk/test/testbed"
)

// A file system written through NBD is read from the backing file by another
// implementation of XTS, with nothing but the data key: the same bytes.
func TestBackingFileIsPlainXTS(t *testing.T) {
	d := testbed.Start(t)
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			d := d.In(t)
			dir := t.TempDir()
			files := filepath.Join(dir, "files")
			if err := os.Mkdir(files, 0o755); err != nil {
				t.Fatal(err)
			}
			testbed.Succeed(t, "cp", randomFile(t, 3*mib+777, 5), filepath.Join(files, "photo"))
			fs, out := filepath.Join(dir, "fs.img"), filepath.Join(dir, "out.img")
			testbed.Succeed(t, "mke2fs", "-q", "-t", "ext4", "-d", files, fs, "48M")

			name := "vol" + sector
			uri := d.Disk(name, "48M", "--sector-size", sector)
			testbed.Succeed(t, "nbdcopy", "--flush", fs, uri)
			// Holes of a granule inside a sector, and writes smaller than one.
			nbdsh(t, uri, "h.zero(512, 40 << 20)\nh.pwrite(b'tail', (47 << 20) + 5)\nh.trim(1024, (40 << 20) + 1024)\nh.flush()")
			testbed.Succeed(t, "nbdcopy", uri, fs)
			d.Must("disk", "detach", name)

			read := testbed.Exec(t, nil, "/usr/bin/python3", "testdata/decrypt.py", d.Image(name), keyFile(t, d.DK(name)), sector, "16777216", out)
			if read.Code != 0 {
				t.Fatal(read)
			}
			sameFiles(t, fs, out)
			testbed.Succeed(t, "fsck.ext4", "-f", "-n", out)
		})
	}
}

// keyFile puts a data key where tools can read it, until the test ends.
func keyFile(t *testing.T, dk []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dk")
	if err := os.WriteFile(path, dk, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
