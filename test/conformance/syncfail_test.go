package conformance

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealdisk/test/testbed"
)

// A sync that fails once is never forgotten: the kernel marks the lost pages
// clean, so a later success would be a lie (Rebello et al., ATC'20).
func TestFailedSyncIsSticky(t *testing.T) {
	for _, c := range []struct{ name, call string }{
		{"flush", "h.flush()"},
		{"write with FUA", "h.pwrite(b'f' * 4096, 8192, nbd.CMD_FLAG_FUA)"},
		{"trim with FUA", "h.trim(4096, 4096, nbd.CMD_FLAG_FUA)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := testbed.Start(t)
			uri := d.Disk("vol", "16M")
			nbdsh(t, uri, "h.pwrite(b'a' * 4096, 0)\nh.flush()")

			release := failSyncs(t, d.Child("engine"))
			call, _, _ := strings.Cut(c.call, "(")
			args := strings.TrimSuffix(strings.TrimPrefix(c.call, call+"("), ")")
			nbdsh(t, uri, fmt.Sprintf("h.pwrite(b'b' * 4096, 4096)\nfailing(errno.EIO, %s, %s)", call, args))
			release()

			// The storage works again; the disk does not pretend so.
			nbdsh(t, uri, `
failing(errno.EIO, h.flush)
failing(errno.EIO, h.pwrite, b'c' * 4096, 0)
failing(errno.EIO, h.zero, 4096, 0)
failing(errno.EIO, h.trim, 4096, 0)
assert h.pread(4096, 0) == b'a' * 4096
`)
			if r := d.CLI("disk", "detach", "vol"); !strings.Contains(r.Stderr, "sync") {
				t.Errorf("detach does not tell of the failed sync: %s", r)
			}
			said := d.Refused(4, "disk", "attach", "vol")
			if !strings.Contains(said, "--accept-data-loss") {
				t.Errorf("the refusal names no way on:\n%s", said)
			}
			// Neither does a restart make it forget.
			d.Stop()
			d.Serve()
			d.Refused(4, "disk", "attach", "vol")
			uri = d.Attach("vol", "--accept-data-loss")
			nbdsh(t, uri, "h.pwrite(b'd' * 4096, 0)\nh.flush()\nassert h.pread(4096, 0) == b'd' * 4096")
		})
	}
}

// failSyncs makes every fdatasync, fsync and synchronous write of a process
// fail with EIO until release is called.
func failSyncs(t *testing.T, pid int) (release func()) {
	t.Helper()
	if pid == 0 {
		t.Fatal("no engine found")
	}
	cmd := exec.Command(testbed.Tool(t, "strace"), "-f", "-p", fmt.Sprint(pid),
		"-e", "trace=fdatasync,fsync,pwritev2,sync_file_range",
		"-e", "inject=fdatasync,fsync,pwritev2,sync_file_range:error=EIO")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	attached, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		sc := bufio.NewScanner(stderr)
		for once := false; sc.Scan(); {
			if !once && strings.Contains(sc.Text(), "attached") {
				once = true
				close(attached)
			}
		}
	}()
	stop := func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		<-drained
		_ = cmd.Wait()
	}
	select {
	case <-attached:
	case <-drained:
		_ = cmd.Wait()
		t.Fatal("strace can't attach to the engine")
	case <-time.After(testbed.Deadline):
		stop()
		t.Fatal("strace did not attach")
	}
	released := false
	release = func() {
		if !released {
			released = true
			stop()
		}
	}
	t.Cleanup(release)
	return release
}
