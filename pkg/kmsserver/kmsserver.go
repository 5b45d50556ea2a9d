// Package kmsserver serves the embedded KMS: a part of DEW's key management
// API over a key store, on a unix socket.
//
// Who may do what follows from the peer's uid, which the kernel tells
// (SO_PEERCRED), never from what a request says:
//
//   - administrators (this process's own uid, root, and Config.AdminUIDs) make,
//     enable, disable and list keys, grant and revoke agencies, take backups,
//     and make and unwrap data keys for purposes of their own;
//   - the service principal "evs" (the uid Config.ServiceUID, in requests that
//     carry api.HeaderPrincipal) makes and unwraps the data keys of disks, whose
//     additional data begin with api.AADReserved, while the project grants it
//     an agency. Nobody else can, not even root;
//   - others who can reach the socket may look at keys.
//
// In one-user mode the three are one uid and so one trust domain; the header
// then keeps an administrator's tools from doing the service's work by
// accident, not by malice.
//
// A plaintext data key passes through locked memory only: the reply that
// carries it is written from there to the socket, past net/http's buffers.
package kmsserver

import (
	"net/http"
	"os"

	"go.uber.org/zap"

	"sealdisk/pkg/kms/keystore"
)

// Policy says which uids are what.
type Policy struct {
	ServiceUID uint32   // may act for EVS
	AdminUIDs  []uint32 // administrators beside root and this process's own uid
}

// DefaultPolicy is one-user mode: this process's uid is also the service's.
func DefaultPolicy() Policy { return Policy{ServiceUID: uint32(os.Geteuid())} }

// Server answers requests on an open key store. It is an http.Handler; the
// server that calls it must set ConnContext to the function of that name here,
// else every request is denied.
type Server struct {
	store  *keystore.Store
	policy Policy
	log    *zap.Logger
	locked bool
	mux    *http.ServeMux
}

// New returns a Server. locked is what status says of the process's memory.
func New(store *keystore.Store, policy Policy, locked bool, log *zap.Logger) *Server {
	s := &Server{store: store, policy: policy, log: log, locked: locked, mux: http.NewServeMux()}
	s.mount()
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }
