// Package nbdserver serves block devices over NBD.
//
// New makes a server, Serve accepts on a listener (a unix or TCP socket) and
// offers what an Exports allows, Shutdown drains. Exports and Export are implemented above this
// package; Gate is how a disk is taken away from its clients.
//
// The server encrypts nothing itself and, until TLS is configured, protects no bytes
// on their way: listeners are unix sockets or loopback (CheckLoopback).
package nbdserver

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/logfield"
)

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = errors.New("server is shut down")

// ErrTooManyConnections is returned when the server or a disk has as many as
// its configuration allows.
var ErrTooManyConnections = errors.New("too many connections")

// Server serves any number of listeners. All methods may be called
// concurrently.
type Server struct {
	cfg Config
	log *zap.Logger
	mem *memory

	watch     *watch
	idle      chan struct{} // closed when Shutdown is done
	drain     sync.Once
	mu        sync.Mutex
	closing   chan struct{} // closed by Shutdown
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	disks     map[*Gate]*disk // with connections
	next      uint64
	done      sync.WaitGroup // connections
}

// New makes a server. The logger gets connections and faults, never one line
// per request.
func New(cfg Config, log *zap.Logger) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, log: log, mem: newMemory(cfg), watch: newWatch(), idle: make(chan struct{}),
		closing:   make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
		disks:     make(map[*Gate]*disk),
	}
	go s.watchConns()
	return s
}

// Serve accepts connections on l until Shutdown (ErrServerClosed), or until l is closed or
// fails, and serves them what ex allows. It closes l.
func (s *Server) Serve(l net.Listener, ex Exports) error {
	defer l.Close()
	s.mu.Lock()
	if s.isClosing() {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	half := make(chan struct{}, s.cfg.MaxHandshakes) // one token per handshake under way
	for {
		select { // a place among the handshakes, before one more is accepted
		case half <- struct{}{}:
		case <-s.closing:
			return ErrServerClosed
		}
		nc, err := l.Accept()
		if err != nil {
			<-half
			if s.isClosing() {
				return ErrServerClosed
			}
			if transient(err) {
				s.log.Warn("accept", logfield.Err(err))
				time.Sleep(50 * time.Millisecond)
				continue
			}
			return err
		}
		s.start(nc, ex, half)
	}
}

func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// start serves one accepted connection, unless there are too many.
func (s *Server) start(nc net.Conn, ex Exports, half chan struct{}) {
	var st *socket
	peer, err := peerOf(nc)
	if err == nil {
		if st, err = newSocket(nc, s.cfg.StallTimeout); err == nil {
			if c := s.register(st, peer); c != nil {
				go func() {
					defer s.done.Done()
					c.serve(ex, half)
				}()
				return
			}
			err = ErrTooManyConnections
		}
	}
	s.log.Warn("connection refused", logfield.Err(err))
	<-half
	if st != nil {
		st.release()
	}
	nc.Close()
}

func (s *Server) register(st stream, peer Peer) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosing() || len(s.conns) >= s.cfg.MaxConnections {
		return nil
	}
	s.next++
	c := newConn(s, s.next, st, peer)
	s.conns[c] = struct{}{}
	s.done.Add(1)
	return c
}

func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// join makes c one of e's connections.
func (s *Server) join(c *conn, e *Export) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.disks[e.Gate]
	fresh := d == nil
	if fresh {
		var err error
		if d, err = newDisk(e, s.cfg, s.mem, s.log); err != nil {
			return err
		}
	}
	err := ErrTooManyConnections
	if d.refs < s.cfg.MaxDiskConnections {
		err = e.Gate.join(c)
	}
	if err != nil {
		if fresh {
			d.stop()
		}
		return err
	}
	s.disks[e.Gate] = d
	d.refs++
	c.disk = d
	c.use = memUser{acct: d.acct, wake: c.wakeReader}
	return nil
}

// leave ends that. Afterwards c does not use the device.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	d := c.disk
	if d.refs--; d.refs == 0 {
		delete(s.disks, d.gate)
		d.stop()
	}
	s.mu.Unlock()
	d.gate.part(c)
}

// Shutdown accepts no more connections, lets what is under way finish, sends
// the replies and closes the connections. When ctx ends first, the connections are cut and
// ctx's error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.isClosing() {
		close(s.closing)
	}
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.finish()
	}
	s.mu.Unlock()
	s.drain.Do(func() {
		go func() {
			s.done.Wait()
			close(s.idle)
		}()
	})
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.kill()
	}
	s.mu.Unlock()
	return ctx.Err()
}
