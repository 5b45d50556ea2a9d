package nbdserver

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/logfield"
)

// inputSize is the size of a connection's read buffer, in bytes.
const inputSize = 64 << 10

// conn is one client, from accept to the last reply.
type conn struct {
	srv  *Server
	s    stream
	peer Peer
	log  *zap.Logger

	neg  negotiated // fixed once the transmission began
	disk *disk
	use  memUser

	crew    crew
	members sync.WaitGroup
	ended   chan ending // the leader's last word

	// The leader's.
	in             input
	isCorked       bool
	todo, todoTail *request // granted writes of the batch in the buffer

	fate     atomic.Int32
	hung     atomic.Bool // a hang-up was seen: something is in limbo
	stopping atomic.Bool // the server wants no more requests
	wake     chan struct{}

	mu               sync.Mutex
	freeList         *request
	made             int          // requests
	under            atomic.Int32 // of them under way; changes with mu held
	readerWaits      bool
	limbo            *request
	outHead, outTail *request // replies to be sent
	outBytes         int
	corked           bool
	writing          bool // somebody has the writer's role

	// The writer role's.
	batch    *request // taken from out, being sent
	sent     int      // bytes of it
	broken   bool     // nothing can be sent any more
	wvec     [maxVec][]byte
	writerGo chan struct{} // passes the role to the writer goroutine
}

func newConn(s *Server, n uint64, st stream, peer Peer) *conn {
	c := &conn{
		srv: s, s: st, peer: peer, log: s.log.With(logfield.Conn(n), logfield.Peer(peer.String())),
		wake: make(chan struct{}, 1), writerGo: make(chan struct{}, 1), ended: make(chan ending, 1),
	}
	c.in = input{s: st, buf: make([]byte, inputSize), stall: s.cfg.StallTimeout}
	return c
}

// serve speaks with the client until one of both ends it.
func (c *conn) serve(ex Exports, half chan struct{}) {
	defer func() {
		c.srv.unregister(c)
		c.s.release()
		if c.disk != nil {
			c.srv.leave(c)
		}
	}()
	err := c.shake(ex)
	<-half
	if err != nil {
		if !errors.Is(err, errAborted) && !errors.Is(err, io.EOF) {
			c.log.Info("handshake failed", logfield.Err(err))
		}
		return
	}
	c.log.Info("connected", logfield.Export(c.neg.export.Name))
	err = c.transmit()
	c.log.Info("disconnected", logfield.Export(c.neg.export.Name), logfield.Err(err))
}

// shake lets the client choose an export.
func (c *conn) shake(ex Exports) error {
	c.s.setDeadline(time.Now().Add(c.srv.cfg.HandshakeTimeout))
	h := &handshake{in: &c.in, ex: ex, peer: c.peer, log: c.log, join: func(e *Export) error { return c.srv.join(c, e) }}
	err := h.run()
	if err == nil {
		err = h.flush()
	}
	c.neg = h.neg
	c.s.setDeadline(time.Time{})
	return err
}

// transmit serves requests until the stream ends and nothing is under way.
func (c *conn) transmit() error {
	c.in.before = c.uncork
	go c.writer()
	c.hire(true)
	end := <-c.ended
	c.in.before = nil
	c.uncork()
	c.setFate(end.fate)
	if fate(c.fate.Load()) == fateDead {
		c.s.close() // the client learns of it at once
	}
	c.mu.Lock()
	for c.under.Load() > 0 {
		c.readerWaits = true
		c.mu.Unlock()
		<-c.wake
		c.mu.Lock()
	}
	c.mu.Unlock()
	c.members.Wait()
	close(c.writerGo)
	return plain(end.err)
}

// ending is how the reading of a connection ended.
type ending struct {
	fate fate
	err  error
}

// plain removes what is no news from the reason for a connection's end.
func plain(err error) error {
	switch {
	case errors.Is(err, net.ErrClosed), errors.Is(err, errStopped):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("client stopped in the middle of a request")
	}
	return err
}

// finish lets the connection end once what is under way is done and its
// replies are sent. It never blocks.
func (c *conn) finish() {
	c.stopping.Store(true)
	c.s.stopReads()
	c.wakeReader()
}

// kill cuts the connection: what has not begun is dropped.
func (c *conn) kill() {
	c.setFate(fateDead)
	c.s.close()
	c.wakeReader()
}

// wakeReader makes the reader look again at what it waits for. It never blocks.
func (c *conn) wakeReader() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// release gives r's granules back and lets it out of the gate.
func (c *conn) release(r *request) {
	if r.locked {
		r.locked = false
		c.disk.locks.Release(&r.rng)
	}
	c.disk.gate.leave()
}

// complete ends a request that was carried out and queues its reply.
func (c *conn) complete(r *request, err error) {
	c.release(r)
	if err != nil {
		c.disk.fault(r.cmd(), err)
		errno := errnoOf(r.cmd(), err)
		r.fail(errno, errno.String())
	} else {
		r.succeed()
	}
	c.reply(r)
}

// drop ends a request that must not run. Nobody waits for its reply.
func (c *conn) drop(r *request) {
	c.release(r)
	r.next = nil
	c.free(r)
}

// free takes back a list of requests and what they hold.
func (c *conn) free(list *request) {
	c.srv.mem.release(&c.use, list)
	c.mu.Lock()
	for list != nil {
		r := list
		list, r.next = r.next, c.freeList
		c.freeList = r
		c.under.Add(-1)
	}
	wake := c.readerWaits
	c.readerWaits = false
	c.mu.Unlock()
	if wake {
		c.wakeReader()
	}
}
