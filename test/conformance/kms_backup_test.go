package conformance

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"sealdisk/test/testbed"
)

// A backup of the KMS, restored into an empty directory on another machine,
// opens a disk that was copied there.
func TestKMSBackupOpensACopiedDisk(t *testing.T) {
	d := testbed.Start(t)
	d.Must("key", "create", "papers")
	uri := d.Disk("vol", "16M", "--key", "papers")
	nbdsh(t, uri, "h.pwrite(b'saved' * 1000, 4096)\nh.flush()")
	d.Must("disk", "detach", "vol")

	dir := t.TempDir()
	backup, pass, wrong := filepath.Join(dir, "backup"), keyFile(t, []byte("correct horse\n")), keyFile(t, []byte("wrong horse\n"))
	d.Must("kms", "backup", backup, "--passphrase-file", pass)
	b, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(backup); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode: %v %v", st.Mode(), err)
	}
	root, err := os.ReadFile(filepath.Join(d.State, "kms", "root.key"))
	if err != nil || bytes.Contains(b, bytes.TrimSpace(root)) || bytes.Contains(b, []byte("papers")) {
		t.Errorf("the backup is not encrypted (%v)", err)
	}
	copied := filepath.Join(dir, d.ID("vol"))
	testbed.Succeed(t, "cp", "-r", "--sparse=always", filepath.Dir(d.Image("vol")), copied)

	other := testbed.New(t)
	restore := func(file, pass string) testbed.Result {
		return other.CLI("kms", "restore", file, "--passphrase-file", pass, "--state-dir", other.State)
	}
	if r := restore(backup, wrong); r.Code == 0 {
		t.Errorf("a wrong passphrase restores: %s", r)
	}
	b[len(b)/2] ^= 1
	damaged := keyFile(t, b)
	if r := restore(damaged, pass); r.Code == 0 {
		t.Errorf("a damaged backup restores: %s", r)
	}
	if r := restore(backup, pass); r.Code != 0 {
		t.Fatal(r)
	}
	if r := restore(backup, pass); r.Code == 0 {
		t.Errorf("restored over a store: %s", r)
	}
	other.Serve()
	other.Must("disk", "import", copied, "--name", "vol")
	nbdsh(t, other.Attach("vol"), "assert h.pread(5000, 4096) == b'saved' * 1000")
}
