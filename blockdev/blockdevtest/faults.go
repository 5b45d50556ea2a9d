package blockdevtest

import (
	"sync"

	"sealdisk/blockdev"
)

// Kind is a set of operations of a device or a storage.
type Kind uint16

// The operations. A Device's WriteZeroes is OpZero, its Trim OpPunch; its
// writes with FUA are OpWriteSync.
const (
	OpRead Kind = 1 << iota
	OpReadNow
	OpWrite
	OpWriteSync
	OpPunch
	OpZero
	OpSync
	OpReserve
	OpExtents
	OpCache
	OpClose
	OpHalf // a RAM disk's write, half of its bytes stored
)

// Op is one operation about to happen.
type Op struct {
	Kind     Kind
	Off, Len int64
}

// Rule makes operations fail or wait.
type Rule struct {
	Kinds    Kind  // 0: all
	Off, Len int64 // operations that touch these bytes; Len 0: all
	Skip     int   // the first so many that match go by
	Times    int   // how many are hit then; 0: all
	Gate     *Gate // wait here first, if not nil
	Err      error // then fail with this, having done nothing, if not nil

	seen int
}

// Faults is a script of rules. The zero value has none; nil is allowed wherever
// a *Faults is taken. All methods may be called concurrently.
type Faults struct {
	mu    sync.Mutex
	rules []*Rule
	count map[Kind]int
}

// Add adds a rule; earlier rules are asked first.
func (f *Faults) Add(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &r)
}

// Clear removes all rules. Who waits at a gate still waits.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Count is how many operations of these kinds there were, failed ones included.
func (f *Faults) Count(k Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for kind, c := range f.count {
		if kind&k != 0 {
			n += c
		}
	}
	return n
}

// check counts op, waits where a rule says so and returns what it fails with.
func (f *Faults) check(op Op) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	if f.count == nil {
		f.count = make(map[Kind]int)
	}
	f.count[op.Kind]++
	var hit *Rule
	for _, r := range f.rules {
		if r.matches(op) {
			hit = r
			break
		}
	}
	f.mu.Unlock()
	if hit == nil {
		return nil
	}
	if hit.Gate != nil {
		hit.Gate.pass(op)
	}
	return hit.Err
}

func (r *Rule) matches(op Op) bool {
	if r.Kinds != 0 && r.Kinds&op.Kind == 0 {
		return false
	}
	if r.Len != 0 && (op.Off >= r.Off+r.Len || r.Off >= op.Off+op.Len) {
		return false
	}
	r.seen++
	return r.seen > r.Skip && (r.Times == 0 || r.seen <= r.Skip+r.Times)
}

// Gate holds operations until the test opens it.
type Gate struct {
	arrived chan Op
	open    chan struct{}
	once    sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan Op, 4096), open: make(chan struct{})}
}

// Arrived waits for the next operation to reach the gate.
func (g *Gate) Arrived() Op { return <-g.arrived }

// Open lets all operations through, those to come too.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

func (g *Gate) pass(op Op) {
	g.arrived <- op
	<-g.open
}

// NewFaulty returns d with the script f before each of its operations. It has
// ReadNow, which d may lack. Closing it closes d.
func NewFaulty(d blockdev.Device, f *Faults) blockdev.Device {
	return &faulty{d, f}
}

type faulty struct {
	blockdev.Device
	f *Faults
}

func (d *faulty) ReadAt(p []byte, off int64) error {
	if err := d.f.check(Op{OpRead, off, int64(len(p))}); err != nil {
		return err
	}
	return d.Device.ReadAt(p, off)
}

func (d *faulty) ReadNow(p []byte, off int64) error {
	if err := d.f.check(Op{OpReadNow, off, int64(len(p))}); err != nil {
		return err
	}
	if n, ok := d.Device.(blockdev.NowReader); ok {
		return n.ReadNow(p, off)
	}
	return blockdev.ErrWouldBlock
}

func (d *faulty) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	kind := OpWrite
	if f&blockdev.FUA != 0 {
		kind = OpWriteSync
	}
	if err := d.f.check(Op{kind, off, int64(len(p))}); err != nil {
		return err
	}
	return d.Device.WriteAt(p, off, f)
}

func (d *faulty) Trim(off, length int64, f blockdev.Flags) error {
	if err := d.f.check(Op{OpPunch, off, length}); err != nil {
		return err
	}
	return d.Device.Trim(off, length, f)
}

func (d *faulty) WriteZeroes(off, length int64, f blockdev.Flags) error {
	if err := d.f.check(Op{OpZero, off, length}); err != nil {
		return err
	}
	return d.Device.WriteZeroes(off, length, f)
}

func (d *faulty) Flush() error {
	if err := d.f.check(Op{Kind: OpSync}); err != nil {
		return err
	}
	return d.Device.Flush()
}

func (d *faulty) Extents(dst []blockdev.Extent, off, length int64, max int) ([]blockdev.Extent, error) {
	if err := d.f.check(Op{OpExtents, off, length}); err != nil {
		return dst, err
	}
	return d.Device.Extents(dst, off, length, max)
}

func (d *faulty) Cache(off, length int64) error {
	if err := d.f.check(Op{OpCache, off, length}); err != nil {
		return err
	}
	return d.Device.Cache(off, length)
}

func (d *faulty) Close() error {
	if err := d.f.check(Op{Kind: OpClose}); err != nil {
		return err
	}
	return d.Device.Close()
}

// SyncErr implements blockdev.SyncReporter.
func (d *faulty) SyncErr() error {
	if r, ok := d.Device.(blockdev.SyncReporter); ok {
		return r.SyncErr()
	}
	return nil
}
