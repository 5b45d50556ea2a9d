package nbdserver

import (
	"errors"
	"math"

	"sealdisk/blockdev"
	"sealdisk/pkg/nbd"
)

// maxExtents bounds the descriptors of one BLOCK_STATUS reply.
const maxExtents = 256

// statusBytes is room for them, in bytes.
const statusBytes = nbd.ContextIDSize + maxExtents*nbd.DescriptorSize

// executor carries out requests on one goroutine, with what that needs.
type executor struct {
	probe   *prober
	extents []blockdev.Extent
}

func newExecutor() *executor {
	return &executor{probe: newProber(), extents: make([]blockdev.Extent, 0, maxExtents)}
}

// run carries r out and queues its reply. r holds its granules. A change of a connection
// that hung up is put aside instead, or dropped.
func (x *executor) run(r *request) {
	c := r.c
	if !c.mayRun(r, x.probe) {
		return
	}
	err := x.do(r)
	c.complete(r, err)
}

// runNow carries out a read whose data are at hand and reports true, or leaves
// it as it was.
func (x *executor) runNow(r *request) bool {
	c := r.c
	off := int64(r.hdr.Offset)
	for i := range r.pieces {
		p := r.pieces[i].b
		if err := c.disk.now.ReadNow(p, off); err != nil {
			if errors.Is(err, blockdev.ErrWouldBlock) {
				return false
			}
			c.complete(r, err)
			return true
		}
		off += int64(len(p))
	}
	c.complete(r, nil)
	return true
}

// do calls the device.
func (x *executor) do(r *request) error {
	dev, off, length := r.c.disk.dev, int64(r.hdr.Offset), int64(r.hdr.Length)
	switch r.cmd() {
	case nbd.CmdRead:
		for i := range r.pieces {
			p := r.pieces[i].b
			if err := dev.ReadAt(p, off); err != nil {
				return err
			}
			off += int64(len(p))
		}
		return nil
	case nbd.CmdWrite:
		return write(dev, r, off)
	case nbd.CmdFlush:
		return dev.Flush()
	case nbd.CmdTrim:
		return dev.Trim(off, length, r.devFlags())
	case nbd.CmdWriteZeroes:
		return dev.WriteZeroes(off, length, r.devFlags())
	case nbd.CmdCache:
		return dev.Cache(off, length)
	default: // BLOCK_STATUS: validate lets nothing else pass
		return x.status(r, off, length)
	}
}

// write stores the pieces. One piece carries FUA itself; several are made
// durable together by one Flush after the last.
func write(dev blockdev.Device, r *request, off int64) error {
	f := r.devFlags()
	flush := f&blockdev.FUA != 0 && len(r.pieces) > 1
	if flush {
		f &^= blockdev.FUA
	}
	for i := range r.pieces {
		p := r.pieces[i].b
		if err := dev.WriteAt(p, off, f); err != nil {
			return err
		}
		off += int64(len(p))
	}
	if flush {
		return dev.Flush()
	}
	return nil
}

// status makes the payload of BLOCK_STATUS: one descriptor for each run of one
// state, none beyond what was asked.
func (x *executor) status(r *request, off, length int64) error {
	limit := maxExtents
	if r.flags()&nbd.FlagReqOne != 0 {
		limit = 1
	}
	var err error
	x.extents, err = r.c.disk.dev.Extents(x.extents[:0], off, length, limit)
	if err != nil {
		return err
	}
	out := r.pieces[0].b[:nbd.ContextIDSize]
	be.PutUint32(out, metaID)
	end := off + length
	count := 0
	var last uint32
	for _, e := range x.extents {
		n := min(e.Off+e.Len, end) - off
		if n <= 0 {
			continue
		}
		var state uint32
		if e.Hole {
			state |= nbd.StateHole
		}
		if e.Zero {
			state |= nbd.StateZero
		}
		off += n
		if count > 0 && state == last {
			prev := out[len(out)-nbd.DescriptorSize:]
			if sum := int64(be.Uint32(prev)) + n; sum <= math.MaxUint32 {
				nbd.PutDescriptor(prev, uint32(sum), state)
				continue
			}
		}
		if count == limit {
			break
		}
		out = out[:len(out)+nbd.DescriptorSize]
		nbd.PutDescriptor(out[len(out)-nbd.DescriptorSize:], uint32(n), state)
		last = state
		count++
	}
	if count == 0 { // the device gave no hint: all of it is data
		out = out[:nbd.ContextIDSize+nbd.DescriptorSize]
		nbd.PutDescriptor(out[nbd.ContextIDSize:], uint32(length), 0)
	}
	r.pieces[0].b = out
	return nil
}
