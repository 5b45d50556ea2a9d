// Package vm runs scenarios on a real kernel's NBD client: a User-mode Linux
// guest of the host's own files, in which the daemon, nbd-client and the file
// systems' tools run. It needs no virtualisation and no second image.
//
// A scenario is a shell script below guest/; its steps report on the console
// (guest/lib.sh), and a test asserts each step by name.
package vm

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// memory of a guest in MiB. It lies in a file that the guest's kernel maps.
const memory = 1536

// Guest is one run of a scenario.
type Guest struct {
	Scenario string
	Binary   string        // the sealdisk binary, absolute
	Timeout  time.Duration // after which the guest is killed
	Params   []string      // more words for the kernel's command line, as name=value
}

// Result is what a guest reported.
type Result struct {
	Passed  []string // steps, in order
	Failed  string   // the step that failed with its log, "" if none did
	Ended   bool     // the scenario came to its end
	Killed  bool     // the guest hung and was killed
	Console []byte
	Elapsed time.Duration
}

// Run boots the guest, waits for it to halt, and kills it with all its
// processes when the time is up. It fails t only if no guest could be started.
func (g Guest) Run(t *testing.T) *Result {
	t.Helper()
	kernel, err := exec.LookPath("linux.uml")
	if err != nil {
		t.Fatalf("User-mode Linux is needed: %v (package user-mode-linux)", err)
	}
	lib, err := filepath.Abs("guest")
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	shim := buildShim(t, dir)

	ctx, cancel := context.WithTimeout(context.Background(), g.Timeout)
	defer cancel()
	args := []string{
		fmt.Sprintf("mem=%dM", memory),
		"root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
		"init=" + filepath.Join(lib, "boot.sh"),
		"con0=fd:0,fd:1", "con=null", "quiet", "uml_dir=" + dir,
		"lib=" + lib, "scenario=" + g.Scenario, "bin=" + g.Binary,
	}
	cmd := exec.Command(kernel, append(args, g.Params...)...)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+shim, "TMPDIR="+memoryDir(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &Result{}
	lines := make(chan string)
	go func() {
		defer close(lines)
		sc := bufio.NewScanner(console)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			lines <- strings.TrimRight(sc.Text(), "\r")
		}
	}()
	r.collect(t, ctx.Done(), lines, func() { killGroup(cmd.Process.Pid) })
	// The exit status of a halted guest says nothing; its console has told all.
	_ = cmd.Wait()
	killGroup(cmd.Process.Pid)
	r.Elapsed = time.Since(start)
	t.Cleanup(func() { r.keep(t) })
	return r
}

// collect reads the console until it closes, calling kill once timeUp.
func (r *Result) collect(t *testing.T, timeUp <-chan struct{}, lines <-chan string, kill func()) {
	var console bytes.Buffer
	for {
		select {
		case <-timeUp:
			r.Killed, timeUp = true, nil
			kill()
		case line, ok := <-lines:
			if !ok {
				r.Console = console.Bytes()
				return
			}
			console.WriteString(line + "\n")
			r.line(t, line)
		}
	}
}

// line takes one line of the console.
func (r *Result) line(t *testing.T, line string) {
	// The kernel may have begun the line with a message of its own.
	_, report, ok := strings.Cut(line, "@@ ")
	if !ok {
		return
	}
	kind, rest, _ := strings.Cut(report, " ")
	switch kind {
	case "PASS":
		name := rest
		if i := strings.LastIndex(rest, " ("); i >= 0 {
			name = rest[:i]
		}
		r.Passed = append(r.Passed, name)
		t.Logf("pass: %s", rest)
	case "FAIL":
		r.Failed = rest
	case "LOG":
		r.Failed += "\n    " + rest
	case "END":
		r.Ended = true
	}
}

// keep leaves the console in dist/test-logs when the test failed.
func (r *Result) keep(t *testing.T) {
	if !t.Failed() {
		return
	}
	dir := filepath.Join("..", "..", "dist", "test-logs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Log(err)
		return
	}
	file := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".console")
	if err := os.WriteFile(file, r.Console, 0o644); err != nil {
		t.Log(err)
		return
	}
	t.Logf("the guest's console is kept in %s", filepath.Clean(strings.TrimPrefix(file, "../../")))
}

// Expect asserts that these steps passed, in this order, and that the scenario
// came to its end.
func (r *Result) Expect(t *testing.T, steps ...string) {
	t.Helper()
	if r.Killed {
		t.Errorf("the guest hung and was killed after %v", r.Elapsed.Round(time.Second))
	}
	if r.Failed != "" {
		t.Errorf("step failed: %s", r.Failed)
	}
	rest := r.Passed
	for _, want := range steps {
		found := false
		for i, got := range rest {
			if got == want {
				rest, found = rest[i+1:], true
				break
			}
		}
		if !found {
			t.Errorf("step %q did not pass (in its place), nor what follows it", want)
			break
		}
	}
	if t.Failed() || !r.Ended {
		t.Errorf("passed: %q; the console ends with:\n%s", r.Passed, tail(r.Console, 2000))
	}
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
