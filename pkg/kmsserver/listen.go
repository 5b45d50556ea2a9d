package kmsserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
)

const (
	maxSocketPath = 107 // bytes: sockaddr_un's 108 less the NUL
	maxConns      = 128 // connections at once
)

// listen makes the unix socket at path with mode 0600, or 0660 for group gid
// where that is not negative. A socket that nobody listens on is replaced; a
// live one never is. The lock file beside it makes that safe against another
// KMS that starts at the same time; release gives it back.
func listen(path string, gid int) (l net.Listener, release func(), err error) {
	if len(path) > maxSocketPath {
		return nil, nil, &api.Error{Class: api.ClassUsage, Message: fmt.Sprintf("the socket's path has %d bytes, at most %d are possible: %s", len(path), maxSocketPath, path),
			Hint: "choose a shorter --run-dir"}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("socket: %w", err)
	}
	lock, err := lockBeside(path)
	if err != nil {
		return nil, nil, err
	}
	unlock := func() { _ = lock.Close() } // the lock goes with the descriptor
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	if err := removeStale(path); err != nil {
		return nil, nil, err
	}
	mode := uint32(0o600)
	if gid >= 0 {
		mode = 0o660
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		// Linux gives the new socket file the mode of the socket's inode, so
		// that it is never open to others, not even for a moment.
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), mode) }), err)
	}}
	if l, err = lc.Listen(context.Background(), "unix", path); err != nil {
		return nil, nil, fmt.Errorf("socket: %w", err)
	}
	if gid >= 0 {
		if err = errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
		}
	}
	return limit(l, maxConns), unlock, nil
}

// lockBeside takes the lock that a KMS holds as long as its socket lives.
func lockBeside(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = inUse(path)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func inUse(path string) error {
	return &api.Error{Class: api.ClassConflict, Message: "another KMS listens on " + path, Hint: "stop it first, or choose another --run-dir"}
}

// removeStale removes a socket that a dead KMS left. Anything that answers,
// or that is no socket, stays.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return &api.Error{Class: api.ClassConflict, Message: path + " is in the way: it is not a socket"}
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return inUse(path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("socket %s: is it in use? %w", path, err)
	}
	return os.Remove(path)
}

// limit accepts at most n connections at a time; more wait to be accepted.
func limit(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
