package keyscan

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealdisk/test/testbed"
)

// noSecretEnv makes the test binary run its arguments as a program for which
// memfd_secret is not there, as on a kernel before 5.14.
const noSecretEnv = "KEYSCAN_NO_SECRET_MEMORY"

func TestMain(m *testing.M) {
	if os.Getenv(noSecretEnv) == "" {
		testbed.Main(m)
		return
	}
	fmt.Fprintln(os.Stderr, withoutSecretMemory(os.Args[1:]))
	os.Exit(1)
}

func withoutSecretMemory(argv []string) error {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: unix.SYS_MEMFD_SECRET},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return err
	}
	os.Unsetenv(noSecretEnv)
	return syscall.Exec(argv[0], argv, os.Environ())
}

// prefix is the start of a command line that runs the rest in the fallback.
func prefix(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"/usr/bin/env", noSecretEnv + "=1", self}
}

// leaky builds the product with one line changed: the engine keeps a copy of
// each disk's key pages on the heap.
func leaky(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "pkg", "keyfetch", "client.go")
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const honest = "\treturn r.MapReadOnly()\n}\n"
	if strings.Count(string(src), honest) != 1 {
		t.Fatalf("%s has changed: this test no longer knows where to leak", file)
	}
	bad := strings.Replace(string(src), honest,
		"\terr = r.MapReadOnly()\n\tLeaked = append(Leaked, slices.Clone(r.Bytes()))\n\treturn err\n}\n\n// Leaked is what this build must never have.\nvar Leaked [][]byte\n", 1)
	dir := t.TempDir()
	copied := filepath.Join(dir, "client.go")
	overlay := filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{file: copied}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return built(t, "-overlay", overlay)
}

// built builds the product with flags of its own.
func built(t *testing.T, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "sealdisk")
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", binary, "sealdisk/cmd/sealdisk")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}
