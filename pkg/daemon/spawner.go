package daemon

import (
	"os/exec"
	"runtime"
	"syscall"
)

// spawner starts processes that die with this one. The kernel sends
// PDEATHSIG when the thread that started a process ends, not the process; so one goroutine with a
// thread of its own, which lives as long as the program, starts them all.
type spawner struct{ jobs chan func() }

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not serve others and end
		for f := range s.jobs {
			f()
		}
	}()
	return s
}

// start starts cmd.
func (s *spawner) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	result := make(chan error)
	s.jobs <- func() { result <- cmd.Start() }
	return <-result
}
