package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
)

// lockName is the launcher's lock in the state and the run directory. (The
// engine holds one of its own, <state>/lock, as long as it uses the catalog.)
const lockName = "launcher.lock"

// takeLocks makes sure that this is the only daemon on the two directories;
// the locks last until the files are closed.
func takeLocks(c *Config) (release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			f.Close()
		}
	}
	dirs := []string{c.StateDir, c.RunDir}
	if filepath.Clean(c.StateDir) == filepath.Clean(c.RunDir) {
		dirs = dirs[:1]
	}
	for _, dir := range dirs {
		f, err := takeLock(dir)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, f)
	}
	return release, nil
}

func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, &api.Error{Class: api.ClassConflict, Message: "another daemon uses " + dir,
			Hint: "stop the other daemon, or give this one its own --state-dir and --run-dir", Err: err}
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}
