// Package testbed starts the real binary for tests: a daemon in directories of its
// own, driven through its command line as a user would.
package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var built struct {
	sync.Once
	dir, binary string
	err         error
}

// Binary builds the product as `make build` does, once per test process, and
// returns its path. Main removes it.
func Binary(t testing.TB) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "sealdisk-bin"); built.err != nil {
			return
		}
		// Another user runs it too in some tests.
		if built.err = os.Chmod(built.dir, 0o755); built.err != nil {
			return
		}
		built.binary = filepath.Join(built.dir, "sealdisk")
		cmd := exec.Command("go", "build", "-trimpath", "-o", built.binary, "sealdisk/cmd/sealdisk")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("build the product: %v", built.err)
	}
	return built.binary
}

// Main is for TestMain: it runs the tests and removes what Binary made.
func Main(m *testing.M) {
	// Tools of the system, some of which stand where only root's PATH leads.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	os.Setenv("LC_ALL", "C")
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// Tool returns the path of a program; a missing one fails the test.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: scripts/deps.sh test installs it", err)
	}
	return path
}
