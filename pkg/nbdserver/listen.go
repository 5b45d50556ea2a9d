package nbdserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path of a unix socket, in bytes.
const maxSocketPath = 107

var (
	// ErrNotLoopback is returned when a TCP address could be reached from other machines.
	ErrNotLoopback = errors.New("NBD over TCP is limited to loopback addresses while TLS is not configured")
	// ErrSocketPath is returned when a socket's path is longer than the kernel takes.
	ErrSocketPath = fmt.Errorf("socket path longer than %d bytes", maxSocketPath)
)

// ListenUnix makes a unix socket at path with mode 0600 that belongs to uid
// (-1 leaves the owner), in place of one that a crash left behind. It appears under its
// name only when mode and owner are set. Closing the listener removes it, unless another
// has taken its place.
func ListenUnix(path string, uid int) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%w: %s", ErrSocketPath, path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("making the socket %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "s")
	if len(tmp) > maxSocketPath {
		return nil, fmt.Errorf("%w: %s", ErrSocketPath, tmp)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Chown(tmp, uid, -1)
	}
	var made os.FileInfo
	if err == nil {
		made, err = os.Lstat(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("making the socket %s: %w", path, err)
	}
	return &unixListener{Listener: l, path: path, made: made}, nil
}

type unixListener struct {
	net.Listener
	path string
	made os.FileInfo // the socket that is ours
}

func (l *unixListener) Close() error {
	if fi, err := os.Lstat(l.path); err == nil && os.SameFile(fi, l.made) {
		os.Remove(l.path)
	}
	return l.Listener.Close()
}

// ListenLoopback listens on a TCP address whose host must be a loopback
// address or "localhost" (ErrNotLoopback).
func ListenLoopback(addr string) (net.Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	if !a.IP.IsLoopback() {
		return nil, fmt.Errorf("address %q: %w", addr, ErrNotLoopback)
	}
	return net.ListenTCP("tcp", a)
}

// CheckLoopback returns ErrNotLoopback when l, a TCP listener made elsewhere,
// can be reached from other machines. Unix listeners pass.
func CheckLoopback(l net.Listener) error {
	a, ok := l.Addr().(*net.TCPAddr)
	if ok && !a.IP.IsLoopback() {
		return fmt.Errorf("address %q: %w", a, ErrNotLoopback)
	}
	return nil
}

// Activated is a listener that a service manager handed over.
type Activated struct {
	Name string // FileDescriptorName= of the socket unit, or ""
	net.Listener
}

// firstActivated is the first descriptor of the socket activation protocol
// (sd_listen_fds(3)).
const firstActivated = 3

// ActivatedListeners takes over the sockets of systemd socket activation:
// LISTEN_FDS descriptors from 3 on, when LISTEN_PID is this process. The variables are removed, so
// that no child takes them for its own. Without activation it returns nothing.
func ActivatedListeners() ([]Activated, error) {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	if pid == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > 1024 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is not a count of sockets", fds)
	}
	return takeListeners(firstActivated, n, strings.Split(names, ":"))
}

// takeListeners makes listeners of n descriptors from first on.
func takeListeners(first, n int, names []string) ([]Activated, error) {
	var all []Activated
	for i := range n {
		fd := first + i
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "activated socket")
		l, err := net.FileListener(f)
		f.Close()
		if err == nil {
			err = CheckLoopback(l)
		}
		if err != nil {
			for _, a := range all {
				a.Close()
			}
			return nil, fmt.Errorf("socket %d of the service manager: %w", i, err)
		}
		a := Activated{Listener: l}
		if i < len(names) {
			a.Name = names[i]
		}
		all = append(all, a)
	}
	return all, nil
}
