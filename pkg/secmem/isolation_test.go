package secmem

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	// hold: a process that holds filled pages; prints where, then waits for
	// its input to end.
	for _, m := range modes {
		roles["hold-"+m.name] = func() error {
			if err := HardenProcess(); err != nil {
				return err
			}
			r, err := Create(PageSize, m.opt)
			if err != nil {
				return err
			}
			f, err := r.Descriptor()
			if err != nil {
				return err
			}
			w, err := OpenChild(f, PageSize)
			if err != nil {
				return err
			}
			copy(w.Bytes(), "the key material")
			if err := errors.Join(w.Close(), r.MapReadOnly()); err != nil {
				return err
			}
			fmt.Printf("%x %s\n", uintptr(unsafe.Pointer(&r.Bytes()[0])), r.Bytes()[:3])
			bufio.NewReader(os.Stdin).ReadString('\n')
			return r.Destroy()
		}
	}
	for name, where := range map[string]func(r *Region) *byte{
		"below": func(r *Region) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(&r.m.mem[0]), -1)) },
		"above": func(r *Region) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(&r.m.mem[0]), len(r.m.mem))) },
	} {
		for _, m := range modes {
			roles["guard-"+name+"-"+m.name] = func() error {
				r, err := Create(PageSize, m.opt)
				if err != nil {
					return err
				}
				fmt.Println("reading", *where(r))
				return nil
			}
		}
	}
	for _, m := range modes {
		roles["write-"+m.name] = func() error {
			r, err := Create(PageSize, m.opt)
			if err != nil {
				return err
			}
			if err := r.MapReadOnly(); err != nil {
				return err
			}
			r.Bytes()[0] = 1
			return nil
		}
	}
	roles["guard-buffer"] = func() error {
		b, err := Lock(64)
		if err != nil {
			return err
		}
		fmt.Println("reading", *(*byte)(unsafe.Add(unsafe.Pointer(&b.Bytes()[0]), 64)))
		return nil
	}
	roles["nolimit"] = func() error {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
			return err
		}
		_, secret := Create(2*PageSize, Options{})
		_, locked := Create(2*PageSize, Options{ForceLocked: true})
		_, buffer := Lock(64)
		_, probe := Probe()
		for what, err := range map[string]error{"secret": secret, "locked": locked, "buffer": buffer, "probe": probe, "all": LockAll()} {
			var m *MemlockError
			if !errors.Is(err, ErrMemlock) || !errors.As(err, &m) {
				return fmt.Errorf("%s: %v is no ErrMemlock", what, err)
			}
			fmt.Printf("%s: %v; %s\n", what, err, m.Hint())
		}
		return nil
	}
	roles["enough"] = func() error {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 4 << 10, Max: 64 << 10}); err != nil {
			return err
		}
		_, err := Create(2*PageSize, Options{})
		var m *MemlockError
		if !errors.As(err, &m) {
			return fmt.Errorf("two pages in a limit of one: %v", err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: m.Need, Max: 64 << 10}); err != nil {
			return err
		}
		r, err := Create(2*PageSize, Options{})
		if err != nil {
			return fmt.Errorf("with the limit that was asked for: %w", err)
		}
		_, err = Create(2*PageSize, Options{})
		if !errors.As(err, &m) {
			return fmt.Errorf("a second region: %v", err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: m.Need, Max: 64 << 10}); err != nil {
			return err
		}
		if _, err = Create(2*PageSize, Options{}); err != nil {
			return fmt.Errorf("a second region with the limit that was asked for: %w", err)
		}
		return r.Destroy()
	}
	roles["lockall"] = LockAll
	roles["harden"] = func() error {
		if err := HardenProcess(); err != nil {
			return err
		}
		d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		var lim unix.Rlimit
		if err := errors.Join(err, unix.Getrlimit(unix.RLIMIT_CORE, &lim)); err != nil {
			return err
		}
		if d != 0 || lim.Cur != 0 || lim.Max != 0 {
			return fmt.Errorf("dumpable %d, core limit %+v", d, lim)
		}
		return nil
	}
}

// holder starts a process that holds key material and returns its pid and the address.
func holder(t *testing.T, mode string) (pid int, addr int64) {
	t.Helper()
	cmd := child("hold-" + mode)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	hex, text, _ := strings.Cut(strings.TrimSpace(line), " ")
	if text != "the" {
		t.Fatalf("the holder itself does not see its pages: %q", line)
	}
	addr, err = strconv.ParseInt(hex, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, addr
}

// Root reads another process's memory: secret pages stay shut, and what can
// be read in the fallback shows that the test would see it.
func TestOtherProcessesReadMemory(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		mode     string
		readable bool
	}{{"memfd_secret", false}, {"mlock", true}} {
		t.Run(tc.mode, func(t *testing.T) {
			pid, addr := holder(t, tc.mode)
			mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			got := make([]byte, 16)
			_, err = mem.ReadAt(got, addr)
			if tc.readable != (err == nil && string(got) == "the key material") {
				t.Errorf("/proc/PID/mem: %q, %v; readable should be %v", got, err, tc.readable)
			}
			clear(got)
			_, err = unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &got[0], Len: 16}},
				[]unix.RemoteIovec{{Base: uintptr(addr), Len: 16}}, 0)
			if tc.readable != (err == nil && string(got) == "the key material") {
				t.Errorf("process_vm_readv: %q, %v; readable should be %v", got, err, tc.readable)
			}
			// Both kinds are marked as not to be dumped ("dd") and locked ("lo").
			flags := vmFlags(t, pid, addr)
			for _, want := range []string{"dd", "lo", "dc"} {
				if !strings.Contains(flags, want) {
					t.Errorf("flags of the pages are %q: no %q", flags, want)
				}
			}
		})
	}
}

// A process reads its own memory through /proc/self/mem, as a bug that leaks files would.
func TestSelfMem(t *testing.T) {
	r := filled(t, Options{RequireSecret: true})
	if err := r.MapReadOnly(); err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	got := make([]byte, 16)
	if n, err := mem.ReadAt(got, int64(uintptr(unsafe.Pointer(&r.Bytes()[0])))); err == nil || n > 0 {
		t.Errorf("read %d bytes: %x", n, got)
	}
}

// vmFlags returns the VmFlags of the mapping that begins at addr.
func vmFlags(t *testing.T, pid int, addr int64) string {
	t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(smaps), fmt.Sprintf("\n%x-", addr))
	if !ok {
		t.Fatalf("no mapping at %x", addr)
	}
	_, rest, _ = strings.Cut(rest, "VmFlags:")
	flags, _, _ := strings.Cut(rest, "\n")
	return flags
}

func TestGuardPagesFault(t *testing.T) {
	names := []string{"guard-buffer", "write-memfd_secret", "write-mlock"}
	for _, m := range modes {
		names = append(names, "guard-below-"+m.name, "guard-above-"+m.name)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			out, err := child(name).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "SIGSEGV") {
				t.Errorf("the child did not fault: %v\n%s", err, out)
			}
		})
	}
}

func TestMemlockLimit(t *testing.T) {
	needRoot(t)
	for _, role := range []string{"nolimit", "enough"} {
		cmd := child(role)
		asNobody(cmd)
		out := run(t, cmd)
		if role == "nolimit" && !strings.Contains(out, fmt.Sprintf("at least %d bytes", 2*PageSize)) {
			t.Errorf("the error does not name the limit needed:\n%s", out)
		}
	}
}

func TestHardenProcess(t *testing.T) {
	run(t, child("harden"))
	needRoot(t)
	run(t, child("lockall"))
}

// A hardened process leaves no core even where it may raise its limit again; an
// ordinary one does, so the test would see it.
func TestNoCore(t *testing.T) {
	needRoot(t)
	for role, want := range map[string]bool{"die-hardened": false, "die": true} {
		cmd := child(role)
		cmd.Dir = t.TempDir()
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), "on purpose") {
			t.Fatalf("%s did not die as it should: %s", role, out)
		}
		if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.CoreDump() != want {
			t.Errorf("%s: status %#x, core dumped: %v, want %v", role, ws, ws.CoreDump(), want)
		}
	}
}

func init() {
	roles["die"] = func() error {
		lim := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		// A hard limit of 0 may stay even for root, without CAP_SYS_RESOURCE.
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &lim); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
		debug.SetTraceback("crash")
		panic("on purpose")
	}
	roles["die-hardened"] = func() error {
		if err := HardenProcess(); err != nil {
			return err
		}
		return roles["die"]()
	}
}

// A process of the same user can't read a hardened one.
func TestHardenedAgainstSameUser(t *testing.T) {
	needRoot(t)
	held := child("hold-mlock")
	asNobody(held)
	in, _ := held.StdinPipe()
	out, _ := held.StdoutPipe()
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); held.Wait() }()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	spy := child("spy")
	asNobody(spy)
	spy.Env = append(spy.Env, fmt.Sprintf("PID=%d", held.Process.Pid))
	run(t, spy)
}

func init() {
	roles["spy"] = func() error {
		path := "/proc/" + os.Getenv("PID") + "/mem"
		if f, err := os.Open(path); err == nil {
			f.Close()
			return fmt.Errorf("%s could be opened", path)
		} else if !errors.Is(err, syscall.EACCES) {
			return err
		}
		return nil
	}
}
