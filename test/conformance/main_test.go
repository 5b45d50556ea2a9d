// Package conformance runs the real binary against real clients and real
// faults: one behaviour a file, named after it.
package conformance

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

const mib = 1 << 20

// randomFile makes a file of size bytes that no compression or hole helps with.
func randomFile(t *testing.T, size int64, seed byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), fmt.Sprintf("random%d", seed))
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{seed}), size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	if digest(t, a) != digest(t, b) {
		t.Errorf("%s and %s differ", a, b)
	}
}

// nbdsh runs lines of Python with libnbd's handle h connected to uri, and
// returns what they printed. Before them stand failing(errno, f, …), which
// asserts that a call fails with this errno, and lax(), which lets libnbd
// send what it would refuse.
func nbdsh(t *testing.T, uri, script string) string {
	t.Helper()
	prelude := `
import errno, nbd
h = nbd.NBD()
def lax():
    h.set_strict_mode(0)
def failing(want, f, *args, **kw):
    try:
        f(*args, **kw)
    except nbd.Error as e:
        got = e.errnum
        assert got == want, "%s%r: errno %s, want %s" % (f.__name__, args, errno.errorcode.get(got, got), errno.errorcode[want])
        return
    raise AssertionError("%s%r succeeded, want %s" % (f.__name__, args, errno.errorcode[want]))
`
	connect := "h.connect_uri(" + quote(uri) + ")\n"
	if strings.HasPrefix(script, "#by hand") {
		connect = "uri = " + quote(uri) + "\n"
	}
	r := testbed.Exec(t, nil, "/usr/bin/python3", "-c", prelude+connect+script)
	if r.Code != 0 {
		t.Fatalf("python: exit %d\n%s\nscript:%s", r.Code, r.Stderr, script)
	}
	return r.Stdout
}

func quote(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }

// flip changes one byte of a file.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	edit(t, path, off, 1, func(b []byte) { b[0] ^= 0xff })
}

// edit changes a range of a file.
func edit(t *testing.T, path string, off, n int64, change func([]byte)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	change(b)
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// part reads a range of a file.
func part(t *testing.T, path string, off, n int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	testbed.Succeed(t, "cp", "--sparse=always", from, to)
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
