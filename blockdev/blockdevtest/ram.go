package blockdevtest

import (
	"sync/atomic"

	"sealdisk/blockdev"
)

// RAM is a Device in memory, the simplest that keeps the contract. Like a real
// device it relies on its callers' excluding each other, so that the race
// detector and torn contents tell of a missing lock.
type RAM struct {
	data   []byte
	faults *Faults
	closed atomic.Bool
}

// NewRAM returns a RAM disk of size bytes, zeros. Each operation passes faults
// first; a write passes it a second time, as OpWriteSync whatever its flags,
// with half of its bytes stored.
func NewRAM(size int64, faults *Faults) *RAM {
	return &RAM{data: make([]byte, size), faults: faults}
}

// Bytes is the disk's memory.
func (d *RAM) Bytes() []byte { return d.data }

// Size implements blockdev.Device.
func (d *RAM) Size() int64 { return int64(len(d.data)) }

func (d *RAM) begin(kind Kind, off, length int64) error {
	if d.closed.Load() {
		return blockdev.ErrClosed
	}
	if err := blockdev.CheckRange(off, length, d.Size()); err != nil {
		return err
	}
	return d.faults.check(Op{kind, off, length})
}

// ReadAt implements blockdev.Device.
func (d *RAM) ReadAt(p []byte, off int64) error {
	if err := d.begin(OpRead, off, int64(len(p))); err != nil {
		return err
	}
	copy(p, d.data[off:])
	return nil
}

// ReadNow implements blockdev.NowReader: memory is always at hand.
func (d *RAM) ReadNow(p []byte, off int64) error {
	if err := d.begin(OpReadNow, off, int64(len(p))); err != nil {
		return err
	}
	copy(p, d.data[off:])
	return nil
}

// WriteAt implements blockdev.Device. It overwrites p, as the contract allows.
func (d *RAM) WriteAt(p []byte, off int64, _ blockdev.Flags) error {
	if err := d.begin(OpWrite, off, int64(len(p))); err != nil {
		return err
	}
	half := len(p) / 2
	copy(d.data[off:], p[:half])
	if err := d.faults.check(Op{OpHalf, off, int64(len(p))}); err != nil {
		return err
	}
	copy(d.data[off+int64(half):], p[half:])
	for i := range p {
		p[i] = 0xa5
	}
	return nil
}

// Trim implements blockdev.Device.
func (d *RAM) Trim(off, length int64, _ blockdev.Flags) error {
	if err := d.begin(OpPunch, off, length); err != nil {
		return err
	}
	lo := (off + granule - 1) / granule * granule
	if hi := (off + length) / granule * granule; lo < hi {
		clear(d.data[lo:hi])
	}
	return nil
}

// WriteZeroes implements blockdev.Device.
func (d *RAM) WriteZeroes(off, length int64, _ blockdev.Flags) error {
	if err := d.begin(OpZero, off, length); err != nil {
		return err
	}
	clear(d.data[off : off+length])
	return nil
}

// Flush implements blockdev.Device.
func (d *RAM) Flush() error { return d.begin(OpSync, 0, 0) }

// Extents implements blockdev.Device: all is data.
func (d *RAM) Extents(dst []blockdev.Extent, off, length int64, _ int) ([]blockdev.Extent, error) {
	if err := d.begin(OpExtents, off, length); err != nil || length == 0 {
		return dst, err
	}
	return append(dst, blockdev.Extent{Off: off, Len: length}), nil
}

// Cache implements blockdev.Device.
func (d *RAM) Cache(off, length int64) error { return d.begin(OpCache, off, length) }

// Close implements blockdev.Device.
func (d *RAM) Close() error {
	if err := d.begin(OpClose, 0, 0); err != nil {
		return err
	}
	d.closed.Store(true)
	return nil
}
