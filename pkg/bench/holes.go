package bench

import (
	"bytes"
	"context"

	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbd/nbdclient"
)

const (
	// lookBytes is the longest range of one look, and maxLooks how often a
	// disk that is only read is looked at: a large one, only in part.
	lookBytes = 1 << 30
	maxLooks  = 256
	// fillBytes is the largest piece of a hole that is filled at once.
	fillBytes = 1 << 20
)

// hole is a range of the disk, in bytes.
type hole struct{ off, length int64 }

// look finds the holes of the range. A server that does not tell has none.
func (r *run) look() (holes []hole, err error) {
	if !r.control.conn.Allocation() {
		return nil, nil
	}
	rep := r.report
	extents := make([]nbdclient.Extent, 0, 4096)
	for n := 0; rep.Looked < rep.Range && (r.Write || n < maxLooks) && !r.stopped.Load(); n++ {
		extents = extents[:0]
		r.control.conn.BlockStatus(0, rep.Looked, int(min(lookBytes, rep.Range-rep.Looked)), &extents)
		reply, err := r.control.conn.Next()
		if err != nil || reply.Errno != 0 {
			return holes, err // refused: what is known already will do
		}
		for _, e := range extents {
			length := min(int64(e.Length), rep.Range-rep.Looked)
			if e.State&(nbd.StateHole|nbd.StateZero) == nbd.StateHole|nbd.StateZero && length > 0 {
				holes = append(holes, hole{rep.Looked, length})
				rep.Holes += length
			}
			rep.Looked += length
		}
	}
	return holes, nil
}

// cut makes the first limit bytes of the holes the pieces of the control connection, a batch at a
// time, and calls f for each.
func (r *run) cut(holes []hole, limit int64, f func() error) error {
	c := r.control
	bufs := make([]byte, controlDepth*fillBytes)
	c.pieces = nil
	for _, h := range holes {
		for h.length > 0 && limit > 0 {
			n := min(h.length, fillBytes, limit)
			c.pieces = append(c.pieces, piece{bufs[len(c.pieces)*fillBytes:][:n], h.off})
			h.off, h.length, limit = h.off+n, h.length-n, limit-n
			if len(c.pieces) == controlDepth {
				if err := f(); err != nil {
					return err
				}
				c.pieces = c.pieces[:0]
			}
		}
	}
	if len(c.pieces) > 0 {
		return f()
	}
	return nil
}

// fill writes the zeros that the holes read as, so that they take up storage.
func (r *run) fill(holes []hole) error {
	return r.cut(holes, r.report.Holes, func() error {
		if r.stopped.Load() {
			return nil
		}
		r.step("filling holes")
		if err := r.control.batch(nbd.CmdRead, controlDepth, false); err != nil || r.stopped.Load() {
			return err
		}
		if err := r.alone(r.ctx); err != nil {
			return err
		}
		for _, p := range r.control.pieces {
			r.report.Filled += int64(len(p.buf))
		}
		return r.control.batch(nbd.CmdWrite, controlDepth, false)
	})
}

// giveBack makes holes again of what fill has filled and what still reads as zeros. It
// can't be interrupted.
func (r *run) giveBack(holes []hole) error {
	r.stopped.Store(false)
	r.report.Kept = r.report.Filled
	return r.cut(holes, r.report.Filled, func() error {
		r.step("giving holes back")
		if err := r.control.batch(nbd.CmdRead, controlDepth, false); err != nil {
			return err
		}
		if err := r.alone(context.WithoutCancel(r.ctx)); err != nil {
			return err
		}
		var length int64
		zeros := r.control.pieces[:0]
		for _, p := range r.control.pieces {
			length += int64(len(p.buf))
			if len(bytes.Trim(p.buf, "\x00")) == 0 {
				zeros = append(zeros, p)
			}
		}
		r.control.pieces = zeros
		err := r.control.batch(nbd.CmdWriteZeroes, controlDepth, false)
		if err == nil {
			r.report.Kept -= length
		}
		return err
	})
}

// step tells what is done beside measuring.
func (r *run) step(what string) {
	if r.Progress != nil {
		r.Progress(Progress{Step: what})
	}
}
