package nbdserver

import (
	"errors"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// String names the peer for logs.
func (p Peer) String() string {
	if p.Local {
		return "uid " + strconv.FormatUint(uint64(p.UID), 10) + " pid " + strconv.Itoa(int(p.PID))
	}
	return p.Addr
}

// peerOf asks the kernel who connected: the credentials of a unix socket's
// peer, or a TCP address.
func peerOf(nc net.Conn) (Peer, error) {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return Peer{Addr: nc.RemoteAddr().String()}, nil
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if cerr != nil {
		return Peer{}, cerr
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Local: true}, nil
}

// transient reports whether accepting may work again later: the process or
// the machine is out of descriptors or memory, or the peer left already.
func transient(err error) bool {
	for _, e := range []syscall.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
