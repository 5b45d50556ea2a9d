package nbdserver

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"sealdisk/blockdev"
	"sealdisk/pkg/nbd"
)

var errStopped = errors.New("server stops reading")

// How a request travels:
//
//  1. The leader parses it out of its buffer, which one system call filled with many, and validates it.
//  2. It reserves the memory for its payload or reply, and takes the payload in.
//  3. It passes the gate and asks for its granules, in order of arrival.
//  4. Granted at once, and not expected to block, the leader runs it; else a worker of the
//     disk does, as soon as the granules are granted. Nothing waits for a lock.
//  5. The granules are released and the reply is queued; see writer.go.
//  6. Sent, its memory is given back and it is used again.
//
// Short writes wait in c.todo until the batch that they came with is parsed: one look
// whether the client is still there then serves them all. They hold granules and memory, so
// they run before the leader waits for anything, and they run between two requests, since the
// lead may be lost with them.
//
// conn.mu guards the lists; no lock is held during a system call.

// lead reads requests and runs them, until the lead is lost (true) or the stream ends.
func (c *conn) lead(x *executor) bool {
	c.yield() // what a leader left that lost the lead
	for {
		if !c.atHand() {
			if !c.runTodo(x) {
				return true
			}
			if _, err := c.in.need(nbd.RequestHeaderSize); err != nil {
				return c.over(c.ending(err))
			}
		}
		if c.stopping.Load() {
			if !c.runTodo(x) {
				return true
			}
			return c.over(fateClosing, errStopped)
		}
		c.cork()
		r := c.tryRequest()
		if r == nil {
			if !c.runTodo(x) {
				return true
			}
			var err error
			if r, err = c.newRequest(); err != nil {
				return c.over(c.ending(err))
			}
		}
		nbd.GetRequestHeader(c.in.buf[c.in.r:], &r.hdr)
		if r.hdr.RequestMagic != nbd.MagicRequest || r.cmd() == nbd.CmdDisc {
			disc := r.hdr.RequestMagic == nbd.MagicRequest
			c.free(r)
			switch {
			case !c.runTodo(x):
				return true
			case disc:
				c.in.skip(nbd.RequestHeaderSize)
				return c.over(fateDisc, nil)
			default:
				return c.over(fateDead, fmt.Errorf("request: %w", errBadMagic))
			}
		}
		if c.todo != nil && !c.fits(r) {
			c.free(r)
			if !c.runTodo(x) {
				return true
			}
			continue
		}
		c.in.skip(nbd.RequestHeaderSize)
		long, err := c.accept(x, r)
		if err != nil {
			return c.over(c.ending(err))
		}
		if long && !c.runLong(x, r) {
			return true
		}
	}
}

// over ends the reading.
func (c *conn) over(f fate, err error) bool {
	c.crew.dismiss()
	c.ended <- ending{f, err}
	return false
}

// atHand reports whether the next request is in the buffer, payload and all.
func (c *conn) atHand() bool {
	n := c.in.buffered()
	if n < nbd.RequestHeaderSize {
		return false
	}
	var h nbd.RequestHeader
	nbd.GetRequestHeader(c.in.buf[c.in.r:], &h)
	return nbd.Command(h.Type) != nbd.CmdWrite || int64(n) >= nbd.RequestHeaderSize+int64(h.Length)
}

// ending tells how a stream ended that can't be read any more.
func (c *conn) ending(err error) (fate, error) {
	if c.stopping.Load() {
		return fateClosing, errStopped
	}
	if err == io.EOF {
		err = nil
	}
	return fateDead, err
}

// bytesOf is the payload of a request in the stream, and the memory that it needs.
func bytesOf(r *request) (payload int64, size uint32) {
	switch r.cmd() {
	case nbd.CmdWrite:
		return int64(r.hdr.Length), r.hdr.Length
	case nbd.CmdRead:
		return 0, r.hdr.Length
	case nbd.CmdBlockStatus:
		return 0, statusBytes
	}
	return 0, 0
}

// fits reports whether r could be accepted now without waiting for memory.
func (c *conn) fits(r *request) bool {
	if errno, _ := validate(&r.hdr, &c.neg); errno != 0 {
		return true
	}
	_, size := bytesOf(r)
	return size == 0 || c.srv.mem.fits(&c.use, reserved(r.hdr.Offset, size))
}

// accept takes a parsed request in and reports whether it is a long one that is still to be run.
// An error means that the stream is lost.
func (c *conn) accept(x *executor, r *request) (long bool, err error) {
	h := &r.hdr
	payload, size := bytesOf(r)
	if errno, msg := validate(h, &c.neg); errno != 0 {
		return false, c.refuse(r, payload, errno, msg)
	}
	if size > 0 {
		if err := c.reserve(r, h.Offset, size, payload); err != nil {
			c.free(r)
			return false, err
		}
		if err := c.srv.mem.fill(r, h.Offset, size); err != nil {
			c.disk.fault(r.cmd(), err)
			return false, c.refuse(r, payload, nbd.ENOMEM, "no memory")
		}
	}
	if payload > 0 {
		if err := c.in.receive(r.pieces); err != nil {
			c.free(r)
			return false, err
		}
	}
	return c.start(x, r), nil
}

// refuse drains the payload, which follows whatever is wrong with the
// request, and replies with an error.
func (c *conn) refuse(r *request, payload int64, errno nbd.Errno, msg string) error {
	if err := c.in.discard(payload); err != nil {
		c.free(r)
		return err
	}
	r.fail(errno, msg)
	c.reply(r)
	return nil
}

// start gives a request that has arrived whole its turn, and reports whether it is a long one
// that is still to be run.
func (c *conn) start(x *executor, r *request) (long bool) {
	d := c.disk
	if !d.gate.enter() {
		r.fail(nbd.ESHUTDOWN, "disk is being detached")
		c.reply(r)
		return false
	}
	if r.locks() {
		r.rng.Off, r.rng.Len, r.rng.Exclusive = int64(r.hdr.Offset), int64(r.hdr.Length), r.changes()
		r.locked = true
		if !d.locks.Acquire(&r.rng) {
			return false // granted gives it to the workers
		}
	}
	switch c.srv.cfg.Path {
	case PathInline:
		x.run(r)
		return false
	case PathWorker:
		d.push(r)
		return false
	case PathShare:
		return true
	}
	switch {
	case r.cmd() == nbd.CmdRead && d.now != nil:
		if r.hdr.Length <= shortRequest {
			if !x.runNow(r) {
				d.push(r)
			}
			return false
		}
		return true
	case r.cmd() == nbd.CmdWrite && r.devFlags()&blockdev.FUA == 0 && d.pace.fast():
		if r.hdr.Length <= shortRequest {
			r.next = nil
			if c.todo == nil {
				c.todo = r
			} else {
				c.todoTail.next = r
			}
			c.todoTail = r
			return false
		}
		return true
	}
	d.push(r)
	return false
}

// shortRequest is the most payload, in bytes, of a request during which nobody else needs to read on.
const shortRequest = 32 << 10

// runTodo runs the writes that wait for the end of their batch. False means that
// the lead is lost.
func (c *conn) runTodo(x *executor) bool {
	if c.todo == nil {
		return true
	}
	alive := fate(c.fate.Load()) == fateAlive && !c.s.hungUp(x.probe)
	c.crew.tid.Store(int32(unix.Gettid()))
	last := clock()
	for c.todo != nil {
		r := c.todo
		c.todo, r.next = r.next, nil
		if !alive && !c.mayRun(r, x.probe) {
			continue
		}
		turn := c.crew.begin(false)
		c.srv.watch.kick()
		err := x.do(r)
		mine := c.crew.end(turn)
		if mine {
			now := clock()
			c.disk.pace.took(now-last, r.hdr.Length)
			last = now
		}
		c.complete(r, err)
		if !mine {
			return false
		}
	}
	return true
}

// runLong runs a long request, during which others may take the lead. False
// means that one did.
func (c *conn) runLong(x *executor, r *request) bool {
	if !c.runTodo(x) {
		c.disk.push(r)
		return false
	}
	c.uncork()
	c.crew.tid.Store(int32(unix.Gettid()))
	others := c.in.buffered() > 0 || c.under.Load() > 1
	turn := c.crew.begin(true)
	c.srv.watch.kick()
	if others {
		c.call(false)
	}
	if r.cmd() != nbd.CmdRead || c.disk.now == nil {
		x.run(r)
	} else if !x.runNow(r) {
		c.disk.push(r)
	}
	return c.crew.end(turn)
}

// yield leaves the writes that wait for the end of their batch to the workers.
func (c *conn) yield() {
	for c.todo != nil {
		r := c.todo
		c.todo, r.next = r.next, nil
		c.disk.push(r)
	}
}

// tryRequest takes a request from the free list or makes one; nil when as many as allowed
// are under way.
func (c *conn) tryRequest() *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tryRequestLocked()
}

func (c *conn) tryRequestLocked() *request {
	if c.freeList == nil {
		n := min(slab, c.srv.cfg.MaxRequests-c.made)
		if n <= 0 {
			return nil
		}
		c.made += n
		c.freeList = makeRequests(c, n)
	}
	r := c.freeList
	c.freeList, r.next = r.next, nil
	c.under.Add(1)
	return r
}

// newRequest is tryRequest that waits.
func (c *conn) newRequest() (*request, error) {
	c.mu.Lock()
	for {
		if r := c.tryRequestLocked(); r != nil {
			c.mu.Unlock()
			return r, nil
		}
		c.readerWaits = true
		c.mu.Unlock()
		if err := c.await(0); err != nil {
			return nil, err
		}
		c.mu.Lock()
	}
}

// reserve waits until size bytes at off may be used. payload bytes of the
// stream are still the request's.
func (c *conn) reserve(r *request, off uint64, size uint32, payload int64) error {
	n := reserved(off, size)
	if !c.srv.mem.reserve(&c.use, n) {
		for {
			if err := c.await(payload); err != nil {
				c.srv.mem.cancel(&c.use)
				return err
			}
			if c.srv.mem.settled(&c.use) {
				break
			}
		}
	}
	r.held = n
	return nil
}

// await waits until wakeReader is called, which need not mean anything. It sends the replies
// first, since what they hold may be what is waited for, and settles the connection's fate, since
// others may wait for that.
func (c *conn) await(payload int64) error {
	c.uncork()
	if err := c.lost(payload); err != nil {
		return err
	}
	<-c.wake
	if err := c.lost(payload); err != nil {
		return err
	}
	c.cork()
	return nil
}

// lost tells whether the reader is to go on, with payload bytes of the stream
// still the current request's.
func (c *conn) lost(payload int64) error {
	c.foresee(payload)
	if fate(c.fate.Load()) == fateDead {
		return io.ErrUnexpectedEOF
	}
	if c.stopping.Load() {
		return errStopped
	}
	return nil
}
