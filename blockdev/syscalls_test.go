package blockdev_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"sealdisk/blockdev"
)

// TestKernelFile is what the tests below run under strace: it works on the file
// named in the environment, and does nothing without.
func TestKernelFile(t *testing.T) {
	path := os.Getenv("SEALDISK_TEST_TRACED")
	if path == "" {
		return
	}
	runtime.LockOSThread() // strace logs by thread
	defer runtime.UnlockOSThread()
	f := openFile(t, path, blockdev.FileOptions{Offset: 4096, Discard: true})
	c, err := blockdev.NewCrypt(f, toy, blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true})
	check(t, err)
	switch os.Getenv("SEALDISK_TEST_DO") {
	case "all":
		check(t, c.WriteAt(bytes.Repeat([]byte{1}, 8192), 0, 0))
		check(t, c.WriteAt(bytes.Repeat([]byte{1}, 512), 8192, blockdev.FUA))
		check(t, c.ReadAt(make([]byte, 512), 12288))
		check(t, c.Trim(512, 512, blockdev.FUA))
		check(t, c.WriteZeroes(1024, 512, 0))
		check(t, c.Cache(4096, 512))
		check(t, c.Flush())
		check(t, c.Close())
	case "fail":
		check(t, c.WriteAt(bytes.Repeat([]byte{1}, 512), 0, 0))
		if err := c.Flush(); !errors.Is(err, blockdev.ErrSyncFailed) || !errors.Is(err, syscall.EIO) {
			t.Errorf("flush whose fdatasync fails: %v", err)
		}
		if err := c.Flush(); !errors.Is(err, blockdev.ErrSyncFailed) {
			t.Errorf("flush afterwards: %v", err)
		}
		if err := c.WriteAt(make([]byte, 512), 0, 0); !errors.Is(err, blockdev.ErrSyncFailed) {
			t.Errorf("write afterwards: %v", err)
		}
		check(t, c.ReadAt(make([]byte, 512), 0))
		if err := c.Close(); !errors.Is(err, blockdev.ErrSyncFailed) {
			t.Errorf("close: %v", err)
		}
	case "fail FUA":
		if err := c.WriteAt(bytes.Repeat([]byte{1}, 512), 0, blockdev.FUA); !errors.Is(err, blockdev.ErrSyncFailed) || !errors.Is(err, syscall.EIO) {
			t.Errorf("write through that fails: %v", err)
		}
		if err := c.Flush(); !errors.Is(err, blockdev.ErrSyncFailed) {
			t.Errorf("flush afterwards: %v", err)
		}
	}
}

// traced runs TestKernelFile under strace and returns the calls on the file, in
// order.
func traced(t *testing.T, do string, inject ...string) []string {
	t.Helper()
	dir := t.TempDir()
	path, log := filepath.Join(dir, "traced.img"), filepath.Join(dir, "log")
	sparse(t, path, 4096+65536)
	args := []string{"-ff", "-y", "-o", log, "-e", "trace=pread64,preadv2,pwrite64,pwritev2,fdatasync,fsync,fallocate,fadvise64,mmap"}
	args = append(args, inject...)
	cmd := exec.Command("strace", append(args, os.Args[0], "-test.run=^TestKernelFile$", "-test.count=1")...)
	cmd.Env = append(os.Environ(), "SEALDISK_TEST_TRACED="+path, "SEALDISK_TEST_DO="+do)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("strace (package strace): %v\n%s", err, out)
	}
	logs, err := filepath.Glob(log + ".*")
	check(t, err)
	call := regexp.MustCompile(`^(\w+)\(\d+<[^>]*traced\.img>,? ?(.*)`)
	var calls []string
	for _, log := range logs {
		text, err := os.ReadFile(log)
		check(t, err)
		for line := range strings.Lines(string(text)) {
			if m := call.FindStringSubmatch(line); m != nil {
				calls = append(calls, m[1]+" "+m[2])
			} else if strings.HasPrefix(line, "mmap") && strings.Contains(line, "traced.img") {
				t.Errorf("the file is mapped: %s", line)
			}
		}
	}
	return calls
}

// TestSystemCalls: the kernel is asked for what the contract promises.
func TestSystemCalls(t *testing.T) {
	calls := traced(t, "all")
	order := []string{
		`^preadv2 .*RWF_NOWAIT`,
		`^pwrite64 .*8192, 4096`,
		`^pwritev2 .*iov_len=512.*12288, RWF_DSYNC`,
		`^pread64 .*512, 16384`,
		`^fallocate FALLOC_FL_KEEP_SIZE\|FALLOC_FL_PUNCH_HOLE, 4608, 512`,
		`^fdatasync`,
		`^fallocate FALLOC_FL_KEEP_SIZE\|FALLOC_FL_PUNCH_HOLE, 5120, 512`,
		`^fadvise64 8192, 512, POSIX_FADV_WILLNEED`,
		`^fdatasync`,
		`^fdatasync`,
	}
	at := 0
	for _, want := range order {
		re := regexp.MustCompile(want)
		for at < len(calls) && !re.MatchString(calls[at]) {
			at++
		}
		if at == len(calls) {
			t.Fatalf("no %s, or not in its place, among\n%s", want, strings.Join(calls, "\n"))
		}
		at++
	}
}

// TestKernelSyncFails: a real fdatasync or write-through that fails.
func TestKernelSyncFails(t *testing.T) {
	traced(t, "fail", "-e", "inject=fdatasync:error=EIO:when=1")
	traced(t, "fail FUA", "-e", "inject=pwritev2:error=EIO:when=1")
}
