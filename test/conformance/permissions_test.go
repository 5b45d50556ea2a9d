package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// The root key readable by others, or not a plain file: the KMS does not start
// with it, and says why.
func TestRootKeyModes(t *testing.T) {
	d := testbed.Start(t)
	d.Disk("vol", "16M")
	d.Stop()
	key := filepath.Join(d.State, "kms", "root.key")
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("root key: %v %v", st, err)
	}
	start := func() testbed.Result {
		return testbed.Exec(t, nil, "timeout", "10", testbed.Binary(t), "kms", "serve", "--state-dir", d.State, "--run-dir", d.Run)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644} {
		t.Run(fmt.Sprintf("%o", mode), func(t *testing.T) {
			if err := os.Chmod(key, mode); err != nil {
				t.Fatal(err)
			}
			if r := start(); r.Code == 0 || r.Code == 124 || !strings.Contains(r.Stderr, "root.key") {
				t.Errorf("started with a root key of mode %o, or did not say why not: %s", mode, r)
			}
		})
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("symbolic link", func(t *testing.T) {
		if err := os.Rename(key, key+".real"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(key+".real", key); err != nil {
			t.Fatal(err)
		}
		if r := start(); r.Code == 0 || r.Code == 124 {
			t.Errorf("started with a link for a root key: %s", r)
		}
		if err := os.Rename(key+".real", key); err != nil {
			t.Fatal(err)
		}
	})
	for _, c := range []struct{ name, content string }{{"empty", ""}, {"short", "short"}, {"another", strings.Repeat("k", 64)}} {
		t.Run(c.name, func(t *testing.T) {
			good, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(key, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if r := start(); r.Code == 0 || r.Code == 124 {
				t.Errorf("started with a damaged root key: %s", r)
			}
			if err := os.WriteFile(key, good, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
	d.Serve()
	expectAttached(t, d, "vol", "nbd+unix:///vol?socket="+d.Run+"/nbd.sock")
}

// Directories and sockets belong to their user alone.
func TestModes(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	for path, want := range map[string]os.FileMode{
		d.Run:                                 0o700,
		d.State:                               0o700,
		filepath.Join(d.Run, "api.sock"):      0o600,
		filepath.Join(d.Run, "kms.sock"):      0o600,
		filepath.Join(d.Run, "nbd.sock"):      0o600,
		testbed.Socket(uri):                   0o600,
		filepath.Join(d.State, "kms"):         0o700,
		filepath.Join(d.State, "catalog"):     0o700,
		filepath.Dir(d.Image("vol")):          0o700,
		d.Image("vol"):                        0o600,
		filepath.Join(d.State, "kms/keys.db"): 0o600,
	} {
		st, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, st.Mode().Perm(), want)
		}
	}
}

// Another user opens none of the sockets, even where the directories let him
// through and the file modes are wide open: the peer is checked.
func TestAnotherUserIsRefused(t *testing.T) {
	if ids, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Count(string(ids), "\n") == 1 && strings.Fields(string(ids))[2] == "1" {
		t.Log("there is only one user here (a user namespace): TestModes has to do")
		return
	}
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	nobody := []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}
	as := func(argv ...string) testbed.Result {
		return testbed.Exec(t, []string{"SEALDISK_RUN_DIR=" + d.Run, "HOME=/nonexistent"}, append(append([]string{}, nobody...), argv...)...)
	}
	try := func(when string) {
		t.Helper()
		for _, argv := range [][]string{
			{"nbdinfo", "--size", uri},
			{"nbdinfo", "--size", "nbd+unix:///vol?socket=" + d.Run + "/nbd.sock"},
			{testbed.Binary(t), "disk", "detach", "vol"},
			{testbed.Binary(t), "disk", "delete", "vol", "--yes"},
			{testbed.Binary(t), "key", "disable", "evs/default", "--yes"},
		} {
			if r := as(argv...); r.Code == 0 {
				t.Errorf("%s: another user may: %s", when, r)
			}
		}
	}
	try("as made")
	for _, dir := range []string{filepath.Dir(d.Run), d.Run, filepath.Join(d.Run, "nbd")} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sockets, err := filepath.Glob(filepath.Join(d.Run, "nbd", "*.sock"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets %v, %v", sockets, err)
	}
	for _, s := range append(sockets, filepath.Join(d.Run, "api.sock"), filepath.Join(d.Run, "kms.sock"), filepath.Join(d.Run, "nbd.sock")) {
		if err := os.Chmod(s, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	try("with modes wide open")
	serves(t, uri)
}
