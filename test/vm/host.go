package vm

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// shortDir is a directory with a short path: the guest puts a unix socket in
// it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sdvm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// memoryDir is where the guest's memory file fits: a tmpfs if there is room.
func memoryDir(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/dev/shm", os.TempDir(), "/var/tmp"} {
		var s syscall.Statfs_t
		if syscall.Statfs(dir, &s) == nil && int64(s.Bavail)*s.Bsize > (memory+64)<<20 {
			return dir
		}
	}
	t.Fatalf("no directory has %d MiB free for the guest's memory", memory)
	return ""
}

// buildShim compiles shim/xstate.c, whose head says why it is needed.
func buildShim(t *testing.T, dir string) string {
	t.Helper()
	shim := filepath.Join(dir, "xstate.so")
	if out, err := exec.Command("cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", shim, "shim/xstate.c").CombinedOutput(); err != nil {
		t.Fatalf("a C compiler is needed: %v\n%s", err, out)
	}
	return shim
}

// killGroup ends a guest: its kernel, and the processes that run the guest's
// programs, which are in its process group or its descendants. Killing an
// ended guest does nothing.
func killGroup(pid int) {
	all := descendants(pid)
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	for _, p := range all {
		_ = syscall.Kill(p, syscall.SIGKILL)
	}
}

// descendants of pid that run now.
func descendants(pid int) (all []int) {
	kids, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, s := range strings.Fields(string(kids)) {
		if kid, err := strconv.Atoi(s); err == nil {
			all = append(append(all, kid), descendants(kid)...)
		}
	}
	return all
}
