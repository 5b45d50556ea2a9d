package nbdserver

import (
	"errors"
	"os"

	"sealdisk/pkg/logfield"
)

// The writing side of a connection. Replies queue up in conn.out. Whoever adds one
// and finds nobody writing takes the writer's role and sends all there is,
// gathered, without waiting; others leave theirs and go. When the client's buffer is full, the role
// passes to the connection's writer goroutine, which may wait. While the reader works
// through a batch of requests (corked) it collects the replies and sends them before it
// reads again.

// reply queues r's reply. It never blocks.
func (c *conn) reply(r *request) {
	r.next = nil
	c.mu.Lock()
	if c.outHead == nil {
		c.outHead = r
	} else {
		c.outTail.next = r
	}
	c.outTail = r
	c.outBytes += r.replySize()
	mine := !c.writing && (!c.corked || c.outBytes >= corkBytes)
	if mine {
		c.writing = true
	}
	c.mu.Unlock()
	if mine {
		c.writeOut(false)
	}
}

// corkBytes of replies are sent even in the middle of a batch.
const corkBytes = 128 << 10

// cork makes replies wait for uncork. Both are the reader's.
func (c *conn) cork() {
	if c.isCorked {
		return
	}
	c.isCorked = true
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

// uncork sends the replies that were collected.
func (c *conn) uncork() {
	if !c.isCorked {
		return
	}
	c.isCorked = false
	c.mu.Lock()
	c.corked = false
	mine := !c.writing && c.outHead != nil
	if mine {
		c.writing = true
	}
	c.mu.Unlock()
	if mine {
		c.writeOut(false)
	}
}

// writeOut sends replies until there are none; the caller has the writer's role, and
// gives it up or passes it to the writer goroutine.
func (c *conn) writeOut(wait bool) {
	for {
		if c.batch == nil {
			c.mu.Lock()
			c.batch, c.outHead, c.outTail, c.outBytes = c.outHead, nil, nil, 0
			if c.batch == nil {
				c.writing = false
				c.mu.Unlock()
				return
			}
			c.mu.Unlock()
		}
		if !c.writeBatch(wait) {
			c.writerGo <- struct{}{} // has room: the role is passed once at a time
			return
		}
	}
}

// writeBatch sends c.batch and lets its requests go. False means that the
// client takes no more now.
func (c *conn) writeBatch(wait bool) bool {
	for c.batch != nil {
		n, err := 0, error(nil)
		if c.broken {
			c.free(c.batch)
			c.batch, c.sent = nil, 0
			return true
		}
		vec := c.gather()
		if wait {
			n, err = c.s.writev(vec)
		} else {
			n, err = c.s.tryWritev(vec)
		}
		switch {
		case err == errWouldBlock:
			return false
		case err != nil:
			c.broken = true
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.log.Warn("client takes no replies", logfield.Err(err))
				c.kill()
			}
			continue
		}
		c.advance(n)
	}
	return true
}

// gather lists what is still to be sent of the batch, as much as one writev takes.
func (c *conn) gather() [][]byte {
	k, skip := 0, c.sent
	add := func(b []byte) {
		if skip >= len(b) {
			skip -= len(b)
			return
		}
		c.wvec[k] = b[skip:]
		skip = 0
		k++
	}
	for r := c.batch; r != nil && k < maxVec; r = r.next {
		add(r.head[:r.nhead])
		if !r.data {
			continue
		}
		for i := 0; i < len(r.pieces) && k < maxVec; i++ {
			add(r.pieces[i].b)
		}
	}
	return c.wvec[:k]
}

// advance counts n bytes as sent and lets the requests go that are complete.
func (c *conn) advance(n int) {
	c.sent += n
	done := c.batch
	var last *request
	for c.batch != nil && c.sent >= c.batch.replySize() {
		c.sent -= c.batch.replySize()
		last, c.batch = c.batch, c.batch.next
	}
	if last != nil {
		last.next = nil
		c.free(done)
	}
}

// writer waits for clients that take their replies slowly.
func (c *conn) writer() {
	for range c.writerGo {
		c.writeOut(true)
	}
}
