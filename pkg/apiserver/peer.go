package apiserver

import (
	"net"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of a unix socket, as the kernel tells
// (SO_PEERCRED). Known is false if it can't be told.
type Peer struct {
	UID, GID uint32
	PID      int32
	Known    bool
}

type peerKey struct{}

func peerOf(c net.Conn) Peer {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Peer{}
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil || err != nil {
		return Peer{}
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Known: true}
}
