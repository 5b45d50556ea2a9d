package nbdserver

import (
	"fmt"
	"io"
)

// input is the reading side of a connection: one buffer that a single
// readv fills with many requests. It belongs to the connection's reader.
type input struct {
	s    stream
	buf  []byte
	r, w int // buf[r:w] is unread
	vec  [1][]byte
}

// buffered is the number of unread bytes at hand.
func (in *input) buffered() int { return in.w - in.r }

// need waits until n bytes are buffered and returns them without consuming;
// n is at most the buffer's size. io.EOF means a clean end, before any byte.
func (in *input) need(n int) ([]byte, error) {
	for in.buffered() < n {
		if in.r > 0 {
			copy(in.buf, in.buf[in.r:in.w])
			in.w -= in.r
			in.r = 0
		}
		in.vec[0] = in.buf[in.w:]
		got, err := in.s.readv(in.vec[:])
		if err != nil {
			if err == io.EOF && in.buffered() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		in.w += got
	}
	return in.buf[in.r : in.r+n], nil
}

// skip consumes n buffered bytes.
func (in *input) skip(n int) { in.r += n }

// readFull fills p.
func (in *input) readFull(p []byte) error {
	for len(p) > 0 {
		if in.buffered() == 0 {
			if _, err := in.need(1); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
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
		if in.buffered() == 0 {
			if _, err := in.need(1); err != nil {
				return fmt.Errorf("draining: %w", err)
			}
		}
		k := int(min(n, int64(in.buffered())))
		in.skip(k)
		n -= int64(k)
	}
	return nil
}
