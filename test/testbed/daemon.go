package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Deadline is how long a test waits for what should happen at once.
const Deadline = 30 * time.Second

// Daemon is a running `sealdisk serve`.
type Daemon struct {
	T       testing.TB
	State   string // state directory
	Run     string // run directory, a short path
	Flags   []string
	Program string   // that is started to serve; "" is the product, see Binary
	Prefix  []string // words before the binary's path when it is started: unshare, setpriv, ...
	cmd     *exec.Cmd
	done    chan struct{} // closed when the launcher has ended
	status  error         // of the launcher, after done
}

// New returns a daemon that is not started, with directories that go when the
// test ends.
func New(t testing.TB) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{T: t, State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run")}
	t.Cleanup(func() {
		d.Stop()
		if t.Failed() {
			d.keepLog()
		}
		os.RemoveAll(dir)
	})
	return d
}

// Start returns a running daemon whose project has granted the agency.
func Start(t testing.TB) *Daemon {
	t.Helper()
	d := New(t)
	d.Serve()
	d.Must("agency", "grant")
	return d
}

// In is the same running daemon with t told of failures: for subtests, which
// must not stop or start it.
func (d *Daemon) In(t testing.TB) *Daemon {
	sub := *d
	sub.T = t
	return &sub
}

func (d *Daemon) logFile() string { return filepath.Dir(d.State) + "/serve.log" }

// Log is what the daemon printed so far.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (d *Daemon) keepLog() {
	log := d.Log()
	d.T.Logf("the daemon's log ends with:\n%s", log[max(0, len(log)-4000):])
	dir := filepath.Join("..", "..", "dist", "test-logs")
	if os.MkdirAll(dir, 0o755) == nil {
		_ = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(d.T.Name(), "/", "-")+".serve.log"), []byte(log), 0o644)
	}
}

// Serve starts the daemon and waits until it answers.
func (d *Daemon) Serve() {
	d.T.Helper()
	if err := d.TryServe(); err != nil {
		d.T.Fatal(err)
	}
}

// TryServe starts the daemon; it fails if the daemon ends before it answers.
func (d *Daemon) TryServe() error {
	d.T.Helper()
	log, err := os.OpenFile(d.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		d.T.Fatal(err)
	}
	defer log.Close()
	program := d.Program
	if program == "" {
		program = Binary(d.T)
	}
	argv := append(append([]string{}, d.Prefix...), program, "serve", "--state-dir", d.State, "--run-dir", d.Run)
	argv = append(argv, d.Flags...)
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.T.Fatal(err)
	}
	d.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		d.status = cmd.Wait()
		close(done)
	}(d.cmd, d.done)
	last := Result{}
	answered := Poll(Deadline, func() bool {
		select {
		case <-d.done:
			return true
		default:
		}
		last = d.CLI("status")
		// The answer may be of another daemon in the same directory.
		return last.Code == 0 && d.Child("engine") != 0
	})
	select {
	case <-d.done:
		return fmt.Errorf("the daemon ended: %v\n%s", d.status, d.Log())
	default:
	}
	if !answered {
		return fmt.Errorf("the daemon does not answer: %s", last)
	}
	return nil
}

// PID of the launcher.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Stop ends the daemon politely, and by force if it does not obey. A stopped
// daemon may be served again.
func (d *Daemon) Stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if !d.ended(Deadline) {
		d.T.Errorf("the daemon did not stop within %v of SIGTERM", Deadline)
	}
	d.Kill()
}

// Kill ends the launcher with SIGKILL and waits until its children are gone
// too.
func (d *Daemon) Kill() {
	if d.cmd == nil {
		return
	}
	pid := d.cmd.Process.Pid
	_ = d.cmd.Process.Kill()
	if !d.ended(Deadline) {
		d.T.Errorf("the launcher survived SIGKILL")
	}
	if !Poll(Deadline, func() bool { return len(groupMembers(pid)) == 0 }) {
		d.T.Errorf("children outlived the launcher: %v", groupMembers(pid))
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	d.cmd = nil
}

func (d *Daemon) ended(limit time.Duration) bool {
	select {
	case <-d.done:
		return true
	case <-time.After(limit):
		return false
	}
}

// ExitError is the launcher's end, once it has ended.
func (d *Daemon) ExitError() error {
	if !d.ended(Deadline) {
		return errors.New("still running")
	}
	return d.status
}

// Result is a program's end.
type Result struct {
	Args           []string
	Stdout, Stderr string
	Code           int
}

func (r Result) String() string {
	return fmt.Sprintf("%s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.Args, " "), r.Code, r.Stdout, r.Stderr)
}

// Exec runs a program to its end.
func Exec(t testing.TB, env []string, argv ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := Result{Args: argv, Stdout: out.String(), Stderr: errs.String(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("hangs: %s", r)
	}
	return r
}

// Succeed runs a program that must exit 0 and returns its output.
func Succeed(t testing.TB, argv ...string) string {
	t.Helper()
	Tool(t, argv[0])
	r := Exec(t, nil, argv...)
	if r.Code != 0 {
		t.Fatal(r)
	}
	return r.Stdout
}

// Poll waits until cond holds, and says whether it did within the limit.
func Poll(limit time.Duration, cond func() bool) bool {
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			return cond()
		case <-tick.C:
		}
	}
	return true
}
