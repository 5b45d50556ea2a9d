package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server that this program started. It has a process group of
// its own, so that Ctrl-C at a terminal reaches only this program, which ends
// it in order; should this program die, the kernel ends it.
type process struct {
	name     string
	log      string // file that takes what it prints
	cmd      *exec.Cmd
	done     chan struct{} // closed when it has ended
	status   error         // after done
	patience time.Duration // how long it may take to end politely
}

// startProcess is called on the main goroutine only: see init.
func startProcess(name, log string, argv ...string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer f.Close()
	p := &process{name: name, log: log, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{}), patience: 10 * time.Second}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Dir = filepath.Dir(log)
	p.cmd.SysProcAttr = ownGroup()
	if err := p.cmd.Start(); err != nil {
		return nil, hint("scripts/deps.sh bench says what is missing", "starting %s: %w", name, err)
	}
	go func() {
		p.status = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// waitFor waits until ready holds, or says why it never will.
func (p *process) waitFor(what string, ready func() bool) error {
	const patience = 30 * time.Second
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if ready() {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before %s: %v\n%s", p.name, what, p.status, p.lastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: no %s within %v\n%s", p.name, what, patience, p.lastWords())
}

// alive returns an error if the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has died: %v\n%s", p.name, p.status, p.lastWords())
	default:
		return nil
	}
}

// lastWords is the end of what it printed.
func (p *process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-8):], "\n    ")
}

// stop ends the process and its whole group: politely, then by force.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(p.patience):
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.done
}

// groupChild is the process of p's group whose first argument is word; 0 if
// there is none.
func (p *process) groupChild(word string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		// pid (comm) state ppid pgrp …; comm may hold anything
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 3 || f[2] != strconv.Itoa(p.pid()) || f[0] == "Z" {
			continue
		}
		dir := filepath.Dir(file)
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		if args := strings.Split(string(cmdline), "\x00"); len(args) > 1 && args[1] == word {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// cpuTime is the CPU time, user and system, of all threads of a process, those
// that ended too. It is utime+stime of /proc/PID/stat, in nanoseconds and not
// in hundredths of a second: the clock that clock_getcpuclockid(3) names.
func cpuTime(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// tempDir makes a directory for this run below parent. It carries our pid: what a
// killed run left behind is removed first, as it may hold gigabytes of memory.
func tempDir(parent string) (string, error) {
	const prefix = "sealdisk-bench."
	old, _ := filepath.Glob(filepath.Join(parent, prefix+"*"))
	for _, dir := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), ".")
		n, err := strconv.Atoi(pid)
		if err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir)
		}
	}
	dir, err := os.MkdirTemp(parent, prefix+strconv.Itoa(os.Getpid())+".")
	if err != nil {
		return "", hint("choose another directory with -dir or -disk-dir", "%w", err)
	}
	return dir, nil
}
