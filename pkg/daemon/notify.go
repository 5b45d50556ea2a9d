package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readyEnv names the descriptor on which a child tells its launcher that it
// serves: one byte, then closed.
const readyEnv = "SEALDISK_READY_FD"

// Ready tells the launcher that started this process, if one did, that it
// serves now.
func Ready() error {
	f, err := inherited(readyEnv)
	if f == nil || err != nil {
		return err
	}
	_, err = f.Write([]byte{1})
	return errors.Join(err, f.Close())
}

// inherited returns the descriptor that the environment variable name gives
// the number of, nil without it, and removes the variable.
func inherited(name string) (*os.File, error) {
	v, ok := os.LookupEnv(name)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(name); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q is not a descriptor", name, v)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("%s=%d: %w", name, fd, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// sdNotify tells a service manager state, as sd_notify(3); without one it does
// nothing.
func sdNotify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") { // abstract
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	_, err = c.Write([]byte(state))
	return errors.Join(err, c.Close())
}
