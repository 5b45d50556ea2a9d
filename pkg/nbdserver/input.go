package nbdserver

import (
	"errors"
	"io"
	"time"

	"sealdisk/pkg/nbd"
)

// input is the reading side of a connection: one buffer that a single
// readv fills with many requests. It belongs to the connection's reader.
type input struct {
	s     stream
	buf   []byte
	r, w  int           // buf[r:w] is unread
	stall time.Duration // how long a client may stop within a request
	// before is called before each read from the stream, which may wait.
	before func()
	ended  bool // slurp read everything there is

	one [1][]byte
	vec [maxVec][]byte
}

// buffered is the number of unread bytes at hand.
func (in *input) buffered() int { return in.w - in.r }

// skip consumes n buffered bytes.
func (in *input) skip(n int) { in.r += n }

// fill reads into bufs. A clean end is io.EOF between requests and
// io.ErrUnexpectedEOF within one, where the client may not stall either.
func (in *input) fill(bufs [][]byte, within bool) (int, error) {
	if in.ended {
		return 0, io.ErrUnexpectedEOF
	}
	if in.before != nil {
		in.before()
	}
	var limit time.Duration
	if within {
		limit = in.stall
	}
	n, err := in.s.readv(bufs, limit)
	if err == io.EOF && within {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// need waits until n bytes are buffered and returns them without consuming;
// n is at most the buffer's size. io.EOF means an end before the first of them.
func (in *input) need(n int) ([]byte, error) {
	for in.buffered() < n {
		in.compact()
		in.one[0] = in.buf[in.w:]
		got, err := in.fill(in.one[:], in.buffered() > 0)
		if err != nil {
			return nil, err
		}
		in.w += got
	}
	return in.buf[in.r : in.r+n], nil
}

// compact moves what is buffered to the front.
func (in *input) compact() {
	if in.r > 0 {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
}

// readFull fills p.
func (in *input) readFull(p []byte) error {
	for len(p) > 0 {
		if err := in.some(); err != nil {
			return err
		}
		n := copy(p, in.buf[in.r:in.w])
		in.skip(n)
		p = p[n:]
	}
	return nil
}

// discard consumes n bytes, wherever they are.
func (in *input) discard(n int64) error {
	for n > 0 {
		if err := in.some(); err != nil {
			return err
		}
		k := int(min(n, int64(in.buffered())))
		in.skip(k)
		n -= int64(k)
	}
	return nil
}

// some waits until something is buffered, in the middle of a request.
func (in *input) some() error {
	if in.buffered() > 0 {
		return nil
	}
	in.r, in.w = 0, 0
	in.one[0] = in.buf
	n, err := in.fill(in.one[:], true)
	in.w = n
	return err
}

// receive fills pieces with a request's payload. What is not buffered goes
// straight from the stream to its place, and what comes after it into the buffer.
func (in *input) receive(pieces []piece) error {
	at := 0 // bytes of pieces[0] already there
	for len(pieces) > 0 {
		if in.buffered() > 0 {
			n := copy(pieces[0].b[at:], in.buf[in.r:in.w])
			in.skip(n)
			if at += n; at == len(pieces[0].b) {
				pieces, at = pieces[1:], 0
			}
			continue
		}
		in.r, in.w = 0, 0
		k := 0
		for i := range pieces[:min(len(pieces), maxVec-1)] {
			in.vec[k] = pieces[i].b
			k++
		}
		in.vec[0] = in.vec[0][at:]
		if k == len(pieces) {
			in.vec[k] = in.buf[:in.ahead(pieces)]
			k++
		}
		n, err := in.fill(in.vec[:k], true)
		if err != nil {
			return err
		}
		for len(pieces) > 0 && n >= len(pieces[0].b)-at {
			n -= len(pieces[0].b) - at
			pieces, at = pieces[1:], 0
		}
		if len(pieces) > 0 {
			at += n
		} else {
			in.w = n
		}
	}
	return nil
}

// longPayload is where copying costs more than one more system call, in bytes.
const longPayload = 32 << 10

// ahead is how much is read beyond a payload: with long ones, which come one after
// the other, no more than a header, so that the next payload goes straight to its place.
func (in *input) ahead(pieces []piece) int {
	if len(pieces[0].b) < longPayload {
		return len(in.buf)
	}
	return nbd.RequestHeaderSize
}

// slurp reads what is left of a stream whose client is gone into the buffer. It reports false
// if that is more than limit bytes, or if the stream failed.
func (in *input) slurp(limit int) bool {
	in.compact()
	for {
		if in.w == len(in.buf) {
			if in.w >= limit {
				return false
			}
			in.buf = append(in.buf, make([]byte, len(in.buf))...)
		}
		in.one[0] = in.buf[in.w:]
		n, err := in.fill(in.one[:], false)
		in.w += n
		if err != nil {
			in.ended = true
			return errors.Is(err, io.EOF)
		}
	}
}
