package kmsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
)

// role is a set of principals that a route admits.
type role uint8

const (
	roleAdmin role = 1 << iota
	roleService
	roleUser // any uid that can reach the socket
)

// Peer is who is at the other end of a connection.
type Peer struct {
	UID uint32
	PID int
}

type peerKey struct{}

// ConnContext is for http.Server: it asks the kernel who connected.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	p, err := peerOf(c)
	if err != nil {
		return ctx // a request without a peer is denied
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(c net.Conn) (Peer, error) {
	if l, ok := c.(*limitedConn); ok {
		c = l.Conn
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}, fmt.Errorf("no peer credentials on a %T", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return Peer{}, fmt.Errorf("peer credentials: %w", err)
	}
	return Peer{UID: cred.Uid, PID: int(cred.Pid)}, nil
}

// principal returns the peer of r and the one role it acts in.
func (s *Server) principal(r *http.Request) (Peer, role, error) {
	p, ok := r.Context().Value(peerKey{}).(Peer)
	if !ok {
		return Peer{}, 0, denied("the peer is unknown")
	}
	switch asked := r.Header.Values(api.HeaderPrincipal); {
	case len(asked) == 0:
	case len(asked) > 1 || asked[0] != api.PrincipalEVS:
		return p, 0, denied("there is no such principal")
	case p.UID != s.policy.ServiceUID:
		return p, 0, denied(fmt.Sprintf("uid %d is not the disk service", p.UID))
	default:
		return p, roleService, nil
	}
	if p.UID == 0 || p.UID == uint32(os.Geteuid()) || slices.Contains(s.policy.AdminUIDs, p.UID) {
		return p, roleAdmin, nil
	}
	return p, roleUser, nil
}
