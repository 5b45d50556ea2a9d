package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/logfield"
)

// service is a child process that is to run all the time. One that ends before
// it ever was ready has bad arguments or surroundings: starting it again would
// not help, and its exit code becomes the daemon's. One that ends later is started again.
type service struct {
	name string
	args func() []string
	// files are handed to the child from descriptor 3 on; release is called
	// once it was started, or could not be. nil is none.
	files func() (files []*os.File, env []string, release func(), err error)
	spawn *spawner
	log   *zap.Logger
	grace time.Duration // from SIGTERM to SIGKILL
	// quit is closed when the daemon stops: nothing is started again then,
	// though other services may still be running.
	quit <-chan struct{}
	// changed is called with the process's id when it started and with 0 when
	// it ended.
	changed func(pid int, restarts int)
}

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
	// stableAfter is how long a process must have been ready for its next
	// failure to count as the first.
	stableAfter = 30 * time.Second
)

// run keeps the service running until ctx ends, and then stops it. onReady is
// called once. The error is that of a service that never became ready.
func (s *service) run(ctx context.Context, onReady func()) error {
	everReady := false
	backoff := firstBackoff
	for restarts := 0; ; restarts++ {
		began := time.Now()
		ready, err := s.once(ctx, restarts, func() {
			if !everReady {
				everReady = true
				onReady()
			}
		})
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-s.quit:
			return nil
		default:
		}
		if !everReady {
			return err
		}
		if ready && time.Since(began) > stableAfter {
			backoff = firstBackoff
		}
		// A terminal's Ctrl-C reaches all processes; this one may hear of it a
		// little later.
		select {
		case <-ctx.Done():
			return nil
		case <-s.quit:
			return nil
		case <-time.After(backoff):
		}
		s.log.Error("a process ended and is started again", logfield.Op(s.name), logfield.Err(err), logfield.Elapsed(backoff))
		backoff = min(2*backoff, maxBackoff)
	}
}

// once starts the process and waits for its end, which it brings about when
// ctx ends. ready reports whether it became ready.
func (s *service) once(ctx context.Context, restarts int, onReady func()) (ready bool, err error) {
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer readyRead.Close()
	cmd, release, err := s.command(readyWrite)
	if err != nil {
		readyWrite.Close()
		return false, err
	}
	err = s.spawn.start(cmd)
	release()
	readyWrite.Close()
	if err != nil {
		return false, fmt.Errorf("start %s: %w", s.name, err)
	}
	s.changed(cmd.Process.Pid, restarts)
	s.log.Info("process started", logfield.Op(s.name), logfield.PID(cmd.Process.Pid))

	isReady := make(chan bool, 1)
	go func() {
		var b [1]byte
		n, _ := readyRead.Read(b[:]) // its end without a byte: the process is gone
		isReady <- n == 1
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := ctx.Done()
	var kill <-chan time.Time
	for {
		select {
		case ok := <-isReady:
			if isReady = nil; ok {
				ready = true
				onReady()
			}
		case <-stop:
			stop = nil
			s.signal(cmd, syscall.SIGTERM)
			kill = time.After(s.grace)
		case <-kill:
			s.log.Warn("process did not stop in time and is killed", logfield.Op(s.name), logfield.PID(cmd.Process.Pid))
			s.signal(cmd, syscall.SIGKILL)
		case err := <-ended:
			s.changed(0, restarts)
			return ready, s.failure(err)
		}
	}
}

// command makes the process, not yet started.
func (s *service) command(ready *os.File) (cmd *exec.Cmd, release func(), err error) {
	cmd = exec.Command(ownExecutable)
	cmd.Args = append([]string{"sealdisk"}, s.args()...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	release = func() {}
	var env []string
	if s.files != nil {
		if cmd.ExtraFiles, env, release, err = s.files(); err != nil {
			return nil, nil, fmt.Errorf("start %s: %w", s.name, err)
		}
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, ready)
	cmd.Env = environment(append(env, readyEnv+"="+strconv.Itoa(2+len(cmd.ExtraFiles)))...)
	return cmd, release, nil
}

func (s *service) signal(cmd *exec.Cmd, sig syscall.Signal) {
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.log.Warn("process can't be signalled", logfield.Op(s.name), logfield.Err(err))
	}
}

// failure gives a process's end the class that its exit code tells. What went wrong it has
// said itself.
func (s *service) failure(err error) error {
	if err == nil {
		return fmt.Errorf("%s ended by itself", s.name)
	}
	class := api.ClassInternal
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		class = api.ClassOfExit(exit.ExitCode())
	}
	return &api.Error{Class: class, Message: fmt.Sprintf("%s failed: %v", s.name, err), Hint: "its own message stands above", Err: err}
}
