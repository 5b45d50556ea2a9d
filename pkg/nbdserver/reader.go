package nbdserver

import (
	"errors"
	"fmt"
	"io"

	"sealdisk/pkg/nbd"
)

var errStopped = errors.New("server stops reading")

// How a request travels:
//
//  1. The reader parses it out of its buffer, which one readv filled with many, and validates it.
//  2. It reserves the memory for its payload or reply, and takes the payload in.
//  3. It passes the gate and asks for its granules, in order of arrival.
//  4. Granted at once and sure not to block, it runs on the reader; else a worker of the
//     disk runs it, as soon as the granules are granted. Nothing waits for a lock.
//  5. The granules are released and the reply is queued; see writer.go.
//  6. Sent, its memory is given back and it is used again.
//
// conn.mu guards the lists; no lock is held during a system call, apart from
// those of Go's poller.

// read serves requests until the stream ends, and returns what becomes of those under way.
func (c *conn) read() (fate, error) {
	for {
		if _, err := c.in.need(nbd.RequestHeaderSize); err != nil {
			return c.ending(err)
		}
		for c.in.buffered() >= nbd.RequestHeaderSize {
			if c.stopping.Load() {
				return fateClosing, errStopped
			}
			c.cork()
			r, err := c.newRequest()
			if err != nil {
				return c.ending(err)
			}
			nbd.GetRequestHeader(c.in.buf[c.in.r:], &r.hdr)
			c.in.skip(nbd.RequestHeaderSize)
			if r.hdr.RequestMagic != nbd.MagicRequest {
				c.free(r)
				return fateDead, fmt.Errorf("request: %w", errBadMagic)
			}
			if r.cmd() == nbd.CmdDisc {
				c.free(r)
				return fateDisc, nil
			}
			if err := c.accept(r); err != nil {
				return c.ending(err)
			}
		}
	}
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

// accept takes a parsed request in. An error means that the stream is lost.
func (c *conn) accept(r *request) error {
	h := &r.hdr
	var payload int64
	if r.cmd() == nbd.CmdWrite {
		payload = int64(h.Length)
	}
	if errno, msg := validate(h, &c.neg); errno != 0 {
		return c.refuse(r, payload, errno, msg)
	}
	var size uint32
	switch r.cmd() {
	case nbd.CmdRead, nbd.CmdWrite:
		size = h.Length
	case nbd.CmdBlockStatus:
		size = statusBytes
	}
	if size > 0 {
		if err := c.reserve(r, h.Offset, size, payload); err != nil {
			c.free(r)
			return err
		}
		if err := c.srv.mem.fill(r, h.Offset, size); err != nil {
			c.disk.fault(r.cmd(), err)
			return c.refuse(r, payload, nbd.ENOMEM, "no memory")
		}
	}
	if payload > 0 {
		if err := c.in.receive(r.pieces); err != nil {
			c.free(r)
			return err
		}
	}
	c.start(r)
	return nil
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

// start gives a request that has arrived whole its turn.
func (c *conn) start(r *request) {
	if !c.disk.gate.enter() {
		r.fail(nbd.ESHUTDOWN, "disk is being detached")
		c.reply(r)
		return
	}
	if r.locks() {
		r.rng.Off, r.rng.Len, r.rng.Exclusive = int64(r.hdr.Offset), int64(r.hdr.Length), r.changes()
		r.locked = true
		if !c.disk.locks.Acquire(&r.rng) {
			return // granted gives it to the workers
		}
	}
	switch c.srv.cfg.Path {
	case PathAuto:
		if r.cmd() == nbd.CmdRead && c.disk.now != nil && r.hdr.Length <= inlineRead && c.exec.runNow(r) {
			return
		}
	case PathInline:
		c.exec.run(r)
		return
	}
	c.disk.push(r)
}

// inlineRead is the longest read, in bytes, that runs on the reader: longer ones would keep
// the requests behind it waiting.
const inlineRead = 64 << 10

// newRequest takes a request from the free list, makes one, or waits for one
// when as many as allowed are under way.
func (c *conn) newRequest() (*request, error) {
	c.mu.Lock()
	for c.freeList == nil {
		if n := min(slab, c.srv.cfg.MaxRequests-c.made); n > 0 {
			c.made += n
			c.freeList = makeRequests(c, n)
			break
		}
		c.readerWaits = true
		c.mu.Unlock()
		if err := c.await(0); err != nil {
			return nil, err
		}
		c.mu.Lock()
	}
	r := c.freeList
	c.freeList, r.next = r.next, nil
	c.inUse++
	c.mu.Unlock()
	return r, nil
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
