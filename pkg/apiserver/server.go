// Package apiserver is the EVS API of the daemon over HTTP on a unix socket,
// and under /sealdisk/v1 what EVS lacks: attach, detach, finalize, import and status.
//
// No route returns a key. Each request is checked in this order before its handler
// sees it: who asks (the socket's peer), route, method, role, kind and size of
// the body, strict JSON. Every reply, errors too, is JSON.
package apiserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/disk"
)

// Disks is what the API works on; *disk.Manager is one. Calls may be
// concurrent; errors are *api.Error.
type Disks interface {
	Create(ctx context.Context, o disk.CreateOptions) (disk.Job, error)
	List(project string) []disk.Info
	Show(project, id string) (disk.Info, error)
	Attach(ctx context.Context, project, id string, o disk.AttachOptions) (disk.Info, error)
	Detach(ctx context.Context, project, id string) error
	Delete(project, id string) (disk.Job, error)
	Finalize(ctx context.Context, project, id string) (disk.Job, error)
	Import(ctx context.Context, o disk.ImportOptions) (disk.Job, error)
	Job(project, id string) (disk.Job, error)
}

// Role is what a peer may do. A higher one includes the lower ones.
type Role int

const (
	RoleNone  Role = iota // nothing
	RoleUser              // use the projects' disks
	RoleAdmin             // also import, which reads any file that the daemon can read
)

// Config says what a Server works with. Role may be nil.
type Config struct {
	Disks Disks
	// Status answers GET /sealdisk/v1/status. May be called concurrently.
	Status func(context.Context) api.Status
	Log    *zap.Logger
	// Connections is the number of NBD clients that a disk, named by its UUID, has now. Nil:
	// not told. May be called concurrently.
	Connections func(id string) int
	// Role says what the peer of a connection may do. Nil: the daemon's own user and root are
	// administrators, others may do nothing.
	Role func(Peer) Role
	// HostName is told as the host of attachments.
	HostName string
}

// Server serves the API. Its methods may be called concurrently.
type Server struct {
	cfg  Config
	http *http.Server
}

// New returns a server that does not listen yet.
func New(cfg Config) *Server {
	if cfg.Role == nil {
		own := uint32(os.Geteuid())
		cfg.Role = func(p Peer) Role {
			if p.UID == own || p.UID == 0 {
				return RoleAdmin
			}
			return RoleNone
		}
	}
	s := &Server{cfg: cfg}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerOf(c))
		},
		ErrorLog: zap.NewStdLog(cfg.Log),
	}
	return s
}

// Serve answers on l, a unix socket, until Shutdown. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops listening and waits for the requests under way until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }
