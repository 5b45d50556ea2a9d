package blockdevtest

import (
	"bytes"
	"fmt"
	"sync"

	"sealdisk/blockdev"
)

// granule is blockdev.GranuleSize as the design has it, said again so that a
// change shows.
const granule = 512

// Oracle is a Device that passes everything on to another and remembers what
// that one promised, to judge what is left of it after a power cut:
//
//   - a granule holds what it held at the last Flush that succeeded (or what a
//     later request with FUA put there), or what a request begun later put there;
//   - a Flush covers the requests that returned before it began;
//   - what failed may be there or not, granule by granule.
//
// It has to see each granule's requests one after the other: put it below the
// RangeLock.
type Oracle struct {
	blockdev.Device
	clock     func() int
	trimZeros bool

	initial []byte

	mu      sync.Mutex
	now     []byte // what reads give
	changes []*change
	flushes []flush
}

// change is one request's effect.
type change struct {
	lo, hi     int64 // whole granules
	data       []byte
	begin, end int // end is -1 until it returned
	ok, fua    bool
	what       string
}

type flush struct{ begin, end int }

// NewOracle returns an Oracle of d. clock tells the time, a count of what
// reached the storage: Recorder.Pos. trimZeros: trimmed granules read as zeros.
// The device's contents are read once and taken for durable.
func NewOracle(d blockdev.Device, clock func() int, trimZeros bool) (*Oracle, error) {
	o := &Oracle{Device: d, clock: clock, trimZeros: trimZeros, now: make([]byte, d.Size())}
	err := d.ReadAt(o.now, 0)
	o.initial = bytes.Clone(o.now)
	return o, err
}

// Contents is what reads should give now; requests under way count as done.
func (o *Oracle) Contents() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.now)
}

// begin records that p (nil: zeros) is about to be put at off.
func (o *Oracle) begin(what string, p []byte, off, length int64, f blockdev.Flags) *change {
	if blockdev.CheckRange(off, length, int64(len(o.now))) != nil || length == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if p != nil {
		copy(o.now[off:], p)
	} else {
		clear(o.now[off : off+length])
	}
	lo, hi := blockdev.Granules(off, length)
	c := &change{lo: lo, hi: hi, data: bytes.Clone(o.now[lo:hi]), begin: o.clock(), end: -1,
		fua: f&blockdev.FUA != 0, what: fmt.Sprintf("%s [%d,+%d) flags %#x", what, off, length, f)}
	o.changes = append(o.changes, c)
	return c
}

// end records that the change returned.
func (o *Oracle) end(c *change, err error) error {
	if c == nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	c.end, c.ok = o.clock(), err == nil
	if err == nil {
		return nil
	}
	// What it left is only to be known by looking.
	p := make([]byte, c.hi-c.lo)
	if rerr := o.Device.ReadAt(p, c.lo); rerr != nil {
		return fmt.Errorf("%w (and the oracle can't read: %v)", err, rerr)
	}
	copy(o.now[c.lo:], p)
	return err
}

// WriteAt implements blockdev.Device.
func (o *Oracle) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	c := o.begin("write", p, off, int64(len(p)), f)
	return o.end(c, o.Device.WriteAt(p, off, f))
}

// Trim implements blockdev.Device.
func (o *Oracle) Trim(off, length int64, f blockdev.Flags) error {
	var c *change
	lo, hi := (off+granule-1)/granule*granule, (off+length)/granule*granule
	if o.trimZeros && lo < hi {
		c = o.begin("trim", nil, lo, hi-lo, f)
	}
	return o.end(c, o.Device.Trim(off, length, f))
}

// WriteZeroes implements blockdev.Device.
func (o *Oracle) WriteZeroes(off, length int64, f blockdev.Flags) error {
	c := o.begin("zeroes", nil, off, length, f)
	return o.end(c, o.Device.WriteZeroes(off, length, f))
}

// Flush implements blockdev.Device.
func (o *Oracle) Flush() error {
	begin := o.clock()
	err := o.Device.Flush()
	if err == nil {
		o.mu.Lock()
		o.flushes = append(o.flushes, flush{begin, o.clock()})
		o.mu.Unlock()
	}
	return err
}

// Verify judges what d, opened on what a power cut at time pos left, holds.
func (o *Oracle) Verify(d blockdev.Device, pos int) error {
	got := make([]byte, d.Size())
	if err := d.ReadAt(got, 0); err != nil {
		return fmt.Errorf("read after the power cut: %w", err)
	}
	return o.VerifyContents(got, pos)
}

// VerifyContents is Verify on what was read.
func (o *Oracle) VerifyContents(got []byte, pos int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(got) != len(o.now) {
		return fmt.Errorf("size %d after the power cut, was %d", len(got), len(o.now))
	}
	covered := -1 // requests that returned by then are durable
	for _, f := range o.flushes {
		if f.end <= pos {
			covered = max(covered, f.begin)
		}
	}
	for g := int64(0); g < int64(len(got)); g += granule {
		if err := o.verifyGranule(got[g:g+granule], g, pos, covered); err != nil {
			return err
		}
	}
	return nil
}

func (o *Oracle) verifyGranule(got []byte, g int64, pos, covered int) error {
	// Backwards from the newest to the one that must be there.
	var history string
	for i := len(o.changes) - 1; i >= 0; i-- {
		c := o.changes[i]
		if g < c.lo || g >= c.hi || c.begin > pos {
			continue
		}
		if bytes.Equal(got, c.data[g-c.lo:][:granule]) {
			return nil
		}
		history = fmt.Sprintf("\n  %s begun %d returned %d ok %v", c.what, c.begin, c.end, c.ok) + history
		returned := c.end >= 0 && c.end <= pos && c.ok
		if returned && (c.fua || c.end <= covered) {
			return fmt.Errorf("power cut at %d: granule at byte %d holds none of what it may hold (% x…); "+
				"flushed up to %d; since the last durable change:%s", pos, g, got[:8], covered, history)
		}
	}
	if first := o.initial[g : g+granule]; !bytes.Equal(got, first) {
		return fmt.Errorf("power cut at %d: granule at byte %d holds none of what it may hold (% x…), was % x… at first; "+
			"flushed up to %d; changes:%s", pos, g, got[:8], first[:8], covered, history)
	}
	return nil
}
