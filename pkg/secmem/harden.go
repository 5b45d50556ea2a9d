package secmem

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// HardenProcess makes the process undumpable: no core, and no ptrace or
// /proc/PID/mem for processes of the same user. An exec undoes it, so every
// process calls it first thing.
func HardenProcess() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	return nil
}

// LockAll locks all memory of the process, now and later, as it is touched.
// Where limits could make a later allocation fail it locks nothing and returns
// ErrMemlock: the caller goes on without, or refuses to.
func LockAll() error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		return fmt.Errorf("RLIMIT_MEMLOCK: %w", err)
	}
	if lim.Cur != unix.RLIM_INFINITY {
		may, err := mayLockAnything()
		if err != nil {
			return err
		}
		if !may {
			return &MemlockError{Limit: lim.Cur, Err: errors.New("all of a process's memory is to be locked")}
		}
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOMEM) {
			return &MemlockError{Limit: lim.Cur, Err: fmt.Errorf("mlockall: %w", err)}
		}
		return fmt.Errorf("mlockall: %w", err)
	}
	return nil
}

// mayLockAnything reports whether the process has CAP_IPC_LOCK in effect.
func mayLockAnything() (bool, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false, fmt.Errorf("capabilities: %w", err)
	}
	return data[unix.CAP_IPC_LOCK/32].Effective&(1<<(unix.CAP_IPC_LOCK%32)) != 0, nil
}

// Probe makes and destroys one page and says which mode Create gives.
//
// Errors: ErrMemlock when not even one page can be locked.
func Probe() (Mode, error) {
	r, err := Create(PageSize, Options{})
	if err != nil {
		return "", err
	}
	return r.Mode(), r.Destroy()
}
