package daemon

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealdisk/pkg/api"
)

// A daemon starts, says so to a service manager, serves, and when it is asked
// to stop leaves no process and no socket behind.
func TestLifecycle(t *testing.T) {
	manager := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: manager, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", manager)
	told := func() string {
		b := make([]byte, 100)
		l.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := l.Read(b)
		if err != nil {
			t.Error(err)
		}
		return string(b[:n])
	}
	d := start(t, dirs(t))
	if s := told(); s != "READY=1" {
		t.Errorf("the service manager was told %q", s)
	}
	v := d.disk(t, "data")
	d.write(t, v.ID, 'x')
	s := d.status(t)
	if s.Processes.KMS == 0 || s.Processes.Launcher != os.Getpid() || s.PID != s.Processes.Engine || !s.KMS.Reachable || s.KeysFetched == 0 {
		t.Errorf("status %s", asJSON(s))
	}
	if err := d.finish(); err != nil {
		t.Error(err)
	}
	if s := told(); s != "STOPPING=1" {
		t.Errorf("the service manager was told %q", s)
	}
	gone(t, s.Processes.KMS)
	gone(t, s.Processes.Engine)
	d.noSockets(t)
	record, err := os.ReadFile(filepath.Join(d.cfg.StateDir, "catalog", v.ID+".json"))
	if err != nil || !regexp.MustCompile(`"state": *"(available|detaching)"`).Match(record) {
		t.Errorf("the disk was not detached (%v): %s", err, record)
	}
	// The wish to be attached is kept: the next daemon attaches it again.
	d = start(t, d.cfg)
	d.holds(t, v.ID, 'x')
}

// noSockets checks that there is no socket of a disk.
func (d *daemon) noSockets(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(d.cfg.RunDir, nbdDirName, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

func TestNoReattach(t *testing.T) {
	d := start(t, dirs(t))
	v := d.disk(t, "data")
	if err := d.finish(); err != nil {
		t.Fatal(err)
	}
	d.cfg.Engine.NoReattach = true
	d = start(t, d.cfg)
	if v, err := d.client.Show(t.Context(), "default", v.ID); err != nil || v.Status != "available" {
		t.Errorf("%q, %v", v.Status, err)
	}
}

// Whoever kills the launcher, even without a chance to react, kills all.
func TestChildrenDieWithTheLauncher(t *testing.T) {
	cfg := dirs(t)
	cmd := exec.Command("/proc/self/exe", "serve", "--state-dir="+cfg.StateDir, "--run-dir="+cfg.RunDir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	d := &daemon{cfg: cfg}
	d.attachTo(t)
	p := d.status(t).Processes
	if p.Launcher != cmd.Process.Pid {
		t.Fatalf("processes %+v", p)
	}
	d.disk(t, "data")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, p.KMS)
	gone(t, p.Engine)
	cmd.Wait()
	// What a killed daemon leaves does not keep the next from starting.
	cfg.Engine.NoReattach = true
	start(t, cfg).noSockets(t)
}

// The KMS dies: it is started again, and nobody who uses a disk notices.
func TestKMSRestarts(t *testing.T) {
	d := start(t, dirs(t))
	v := d.disk(t, "data")
	old := d.status(t).Processes
	if err := syscall.Kill(old.KMS, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.write(t, v.ID, 'y')
	eventually(t, "another KMS runs", func() bool {
		s := d.status(t)
		return s.Processes.KMS != 0 && s.Processes.KMS != old.KMS && s.KMS.Reachable
	})
	if p := d.status(t).Processes; p.Engine != old.Engine || p.KMSRestarts != 1 {
		t.Errorf("processes %+v", p)
	}
	d.disk(t, "more")
}

// The engine dies: it is started again and attaches again what was attached.
func TestEngineRestarts(t *testing.T) {
	d := start(t, dirs(t))
	v := d.disk(t, "data")
	d.write(t, v.ID, 'z')
	old := d.status(t).Processes
	if err := syscall.Kill(old.Engine, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, old.Engine)
	eventually(t, "another engine serves", func() bool {
		s, err := d.client.Status(t.Context())
		return err == nil && s.Processes.Engine != 0 && s.Processes.Engine != old.Engine
	})
	d.holds(t, v.ID, 'z')
	if p := d.status(t).Processes; p.KMS != old.KMS || p.EngineRestarts != 1 {
		t.Errorf("processes %+v", p)
	}
}

func TestTwoDaemons(t *testing.T) {
	d := start(t, dirs(t))
	other := dirs(t)
	for name, cfg := range map[string]Config{
		"one state directory": {StateDir: d.cfg.StateDir, RunDir: other.RunDir},
		"one run directory":   {StateDir: other.StateDir, RunDir: d.cfg.RunDir},
	} {
		t.Run(name, func(t *testing.T) {
			err := refused(t, cfg)
			if api.ClassOf(err) != api.ClassConflict || !strings.Contains(err.Error(), "another daemon uses") {
				t.Errorf("error %v of class %s", err, api.ClassOf(err))
			}
		})
	}
	d.status(t) // the first is as it was
}

// What can't work is said at once, with the class that the child's exit code
// tells; nothing is started again and again.
func TestBadConfigurations(t *testing.T) {
	for _, tc := range []struct {
		name  string
		setup func(t *testing.T, c *Config)
		want  api.Class
	}{
		{"relative directory", func(t *testing.T, c *Config) { c.StateDir = "state" }, api.ClassUsage},
		{"socket path too long", func(t *testing.T, c *Config) { c.RunDir = "/tmp/" + strings.Repeat("x", 60) }, api.ClassUsage},
		{"no such group", func(t *testing.T, c *Config) { c.Engine.SocketGroup = "nobody-has-this-group" }, api.ClassUsage},
		{"NBD beyond loopback", func(t *testing.T, c *Config) { c.Engine.NBDListen = "0.0.0.0:0" }, api.ClassUsage},
		{"root key readable by others", func(t *testing.T, c *Config) {
			dir := filepath.Join(c.StateDir, "kms")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "root.key"), bytes.Repeat([]byte("x"), 64), 0o644); err != nil {
				t.Fatal(err)
			}
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := dirs(t)
			tc.setup(t, &cfg)
			err := refused(t, cfg)
			if class := api.ClassOf(err); err == nil || tc.want != "" && class != tc.want {
				t.Errorf("error %v of class %s, want %s", err, class, tc.want)
			}
		})
	}
}

// The engine starts without a KMS, and says what is missing.
func TestStartsWithoutKMS(t *testing.T) {
	cfg := dirs(t)
	cfg.KMSSocket = filepath.Join(filepath.Dir(cfg.RunDir), "none.sock")
	d := start(t, cfg)
	s := d.status(t)
	if s.KMS.Reachable || s.KMS.Embedded || s.Processes.KMS != 0 || len(s.Warnings) == 0 {
		t.Errorf("status %s", asJSON(s))
	}
}

// Children get fixed arguments and a fixed environment, whatever the
// launcher was given, and its open files are not theirs.
func TestChildrensSurroundings(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the children are undumpable, so nobody else sees their environment")
	}
	t.Setenv("SECRET_OF_THE_SHELL", "1")
	d := start(t, dirs(t))
	p := d.status(t).Processes
	for name, pid := range map[string]int{"kms": p.KMS, "engine": p.Engine} {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for v := range strings.SplitSeq(strings.TrimRight(string(env), "\x00"), "\x00") {
			n, _, _ := strings.Cut(v, "=")
			names = append(names, n)
		}
		slices.Sort(names)
		want := []string{"HOME", "LANG", "SEALDISK_READY_FD"}
		if name == "engine" {
			want = []string{"HOME", "LANG", "SEALDISK_LAUNCHER_FD", "SEALDISK_READY_FD"}
		}
		if !slices.Equal(names, want) {
			t.Errorf("environment of %s is %q, want %q", name, names, want)
		}
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(files) == 0 {
			t.Fatal(err)
		}
		for _, f := range files {
			if target, err := os.Readlink(f); err == nil && strings.HasSuffix(target, lockName) {
				t.Errorf("%s has the launcher's lock open", name)
			}
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil || !strings.Contains(string(status), "Max core file size        0                    0") {
			t.Errorf("%s may dump core: %v\n%s", name, err, status)
		}
	}
}

// Sockets of a service manager reach the engine, and only it.
func TestSocketActivation(t *testing.T) {
	cfg := dirs(t)
	path := filepath.Join(filepath.Dir(cfg.RunDir), "act.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "serve", "--activate=1", "--state-dir="+cfg.StateDir, "--run-dir="+cfg.RunDir)
	cmd.Env = []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=nbd:nbd", "HOME=/nonexistent"}
	cmd.ExtraFiles = []*os.File{f, f}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	f.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	d := &daemon{cfg: cfg}
	d.attachTo(t)
	v := d.disk(t, "data")
	dev, err := open(path, v.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.ReadAt(make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
	dev.Close()
	// The KMS, which is not to have it, has no descriptor of it.
	if os.Geteuid() != 0 {
		return // its descriptors can't be seen
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"kms": false, "engine": true} {
		pid := map[string]int{"kms": d.status(t).Processes.KMS, "engine": d.status(t).Processes.Engine}[name]
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(links) == 0 {
			t.Fatal(links, err)
		}
		has := slices.ContainsFunc(links, func(l string) bool {
			target, err := os.Readlink(l)
			return err == nil && target == fmt.Sprintf("socket:[%d]", st.Ino)
		})
		if has != want {
			t.Errorf("%s has the activated socket: %v, want %v", name, has, want)
		}
	}
}
