package blockdevtest

import (
	"sync"
	"syscall"

	"sealdisk/blockdev"
)

// TornUnit is the unit, in bytes, that storage writes whole or not at all in a
// power cut.
const TornUnit = 512

// Recorder stands in for a file: a blockdev.Storage in memory that records
// every write, punch and sync, so that Crash can make any of the contents that
// a power cut may leave on the disk.
//
// It is as unkind as a file system may be: what is not synced reaches the disk
// in any order, in any combination of sectors, in any of the versions that the
// sector went through. A write beside a sync is not covered by it. A failed
// sync loses its data for good, yet later syncs succeed, as Linux does.
type Recorder struct {
	// Faults, if not nil, is asked before every operation; its errors should be
	// syscall.Errno. EOPNOTSUPP makes a file without that operation.
	Faults *Faults
	// MaxIO, if not 0, is how many bytes one read moves at most, and how many
	// one write does up to where a sector ends: short counts.
	MaxIO int
	// Space, if not 0, is how many sectors can be allocated before ENOSPC.
	// Punching gives back.
	Space int
	// Inf is what Info answers. NewRecorder fills it in.
	Inf blockdev.StorageInfo

	mu      sync.Mutex
	initial []byte // what the disk held at the start, durably
	data    []byte // what reads see
	alloc   []bool // by sector
	used    int
	log     []event
}

type eventKind uint8

const (
	evChange  eventKind = iota // data, or zeros, at off
	evDurable                  // the write of event ref is durable
	evSynced                   // what came before event ref is durable
	evLost                     // a sync of what came before event ref failed
)

type event struct {
	kind eventKind
	off  int64
	n    int64
	data []byte // nil: zeros
	ref  int
}

// NewRecorder returns a file of image's length and contents, which are durable.
// Zeros are holes.
func NewRecorder(image []byte) *Recorder {
	r := &Recorder{
		Inf:     blockdev.StorageInfo{Size: int64(len(image)), ZeroAlign: 1},
		initial: append([]byte(nil), image...),
		data:    append([]byte(nil), image...),
		alloc:   make([]bool, (len(image)+TornUnit-1)/TornUnit),
	}
	for i := range image {
		if image[i] != 0 && !r.alloc[i/TornUnit] {
			r.alloc[i/TornUnit] = true
			r.used++
		}
	}
	return r
}

// Pos is the number of events recorded: a point in time to cut the power at.
func (r *Recorder) Pos() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.log)
}

// Image is a copy of what reads see.
func (r *Recorder) Image() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]byte(nil), r.data...)
}

// Info implements blockdev.Storage.
func (r *Recorder) Info() blockdev.StorageInfo { return r.Inf }

func (r *Recorder) cut(p []byte) []byte {
	if r.MaxIO > 0 && len(p) > r.MaxIO {
		return p[:r.MaxIO]
	}
	return p
}

// Pread implements blockdev.Storage.
func (r *Recorder) Pread(p []byte, off int64) (int, error) {
	return r.read(OpRead, p, off)
}

// PreadNow implements blockdev.Storage.
func (r *Recorder) PreadNow(p []byte, off int64) (int, error) {
	return r.read(OpReadNow, p, off)
}

func (r *Recorder) read(kind Kind, p []byte, off int64) (int, error) {
	if err := r.Faults.check(Op{kind, off, int64(len(p))}); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if off >= int64(len(r.data)) {
		return 0, nil
	}
	return copy(r.cut(p), r.data[off:]), nil
}

// Pwrite implements blockdev.Storage.
func (r *Recorder) Pwrite(p []byte, off int64) (int, error) {
	if err := r.Faults.check(Op{OpWrite, off, int64(len(p))}); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.write(p, off)
}

// PwriteSync implements blockdev.Storage. A fault fails it after the data was
// written and before it is durable, unless the error says that nothing was done
// (ENOSPC, EDQUOT, EOPNOTSUPP, EINTR).
func (r *Recorder) PwriteSync(p []byte, off int64) (int, error) {
	err := r.Faults.check(Op{OpWriteSync, off, int64(len(p))})
	switch err {
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EOPNOTSUPP, syscall.EINTR:
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n, werr := r.write(p, off)
	if werr != nil {
		return n, werr
	}
	written := len(r.log) - 1
	if err != nil {
		r.log = append(r.log, event{kind: evLost, off: off, n: int64(n), ref: written + 1})
		return 0, err
	}
	r.log = append(r.log, event{kind: evDurable, ref: written})
	return n, nil
}

// write stores as much of p as there is room for.
func (r *Recorder) write(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(r.data)) {
		return 0, syscall.EFBIG // a device must not write behind its file's end
	}
	if cut := len(r.cut(p)); cut < len(p) {
		// A file system moves whole sectors.
		if end := (off + int64(cut)) / TornUnit * TornUnit; end > off {
			p = p[:end-off]
		} else {
			p = p[:min(int64(len(p)), end+TornUnit-off)]
		}
	}
	n := 0
	for n < len(p) {
		s := (off + int64(n)) / TornUnit
		if !r.alloc[s] {
			if r.Space > 0 && r.used >= r.Space {
				break
			}
			r.alloc[s] = true
			r.used++
		}
		n = int(min(int64(len(p)), (s+1)*TornUnit-off))
	}
	if n == 0 && len(p) > 0 {
		return 0, syscall.ENOSPC
	}
	r.change(off, int64(n), append([]byte(nil), p[:n]...))
	return n, nil
}

func (r *Recorder) change(off, n int64, data []byte) {
	r.log = append(r.log, event{kind: evChange, off: off, n: n, data: data})
	apply(r.data, r.log[len(r.log)-1])
}

func apply(data []byte, e event) {
	if e.data == nil {
		clear(data[e.off : e.off+e.n])
	} else {
		copy(data[e.off:], e.data)
	}
}

// Punch implements blockdev.Storage.
func (r *Recorder) Punch(off, length int64) error {
	if err := r.Faults.check(Op{OpPunch, off, length}); err != nil {
		return err
	}
	return r.zero(off, length, true)
}

// ZeroRange implements blockdev.Storage.
func (r *Recorder) ZeroRange(off, length int64) error {
	if err := r.Faults.check(Op{OpZero, off, length}); err != nil {
		return err
	}
	return r.zero(off, length, false)
}

func (r *Recorder) zero(off, length int64, free bool) error {
	if off < 0 || length <= 0 || off%r.Inf.ZeroAlign != 0 || length%r.Inf.ZeroAlign != 0 {
		return syscall.EINVAL
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	length = min(length, int64(len(r.data))-off)
	if length <= 0 {
		return nil // behind the end
	}
	r.change(off, length, nil)
	for s := off / TornUnit; s*TornUnit < off+length; s++ {
		whole := s*TornUnit >= off && (s+1)*TornUnit <= off+length
		if free && whole && r.alloc[s] {
			r.alloc[s] = false
			r.used--
		} else if !free && !r.alloc[s] {
			r.alloc[s] = true
			r.used++
		}
	}
	return nil
}

// Reserve implements blockdev.Storage.
func (r *Recorder) Reserve(off, length int64) error {
	if err := r.Faults.check(Op{OpReserve, off, length}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := off / TornUnit; s*TornUnit < off+length; s++ {
		if r.alloc[s] {
			continue
		}
		if r.Space > 0 && r.used >= r.Space {
			return syscall.ENOSPC
		}
		r.alloc[s] = true
		r.used++
	}
	return nil
}

// Sync implements blockdev.Storage. A gate in Faults holds it after it began.
func (r *Recorder) Sync() error {
	r.mu.Lock()
	began := len(r.log)
	r.mu.Unlock()
	err := r.Faults.check(Op{Kind: OpSync})
	if err == syscall.EINTR {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kind := evSynced
	if err != nil {
		kind = evLost
	}
	r.log = append(r.log, event{kind: kind, n: int64(len(r.data)), ref: began})
	return err
}

// SeekData implements blockdev.Storage.
func (r *Recorder) SeekData(off int64) (int64, error) { return r.seek(off, true) }

// SeekHole implements blockdev.Storage.
func (r *Recorder) SeekHole(off int64) (int64, error) { return r.seek(off, false) }

func (r *Recorder) seek(off int64, alloc bool) (int64, error) {
	if err := r.Faults.check(Op{OpExtents, off, 0}); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := off / TornUnit; s < int64(len(r.alloc)); s++ {
		if r.alloc[s] == alloc {
			return max(off, s*TornUnit), nil
		}
	}
	if !alloc && off < int64(len(r.data)) {
		return int64(len(r.data)), nil // the end is a hole
	}
	return 0, syscall.ENXIO
}

// WillNeed implements blockdev.Storage.
func (r *Recorder) WillNeed(off, length int64) error {
	return r.Faults.check(Op{OpCache, off, length})
}

// Close implements blockdev.Storage.
func (r *Recorder) Close() error { return r.Faults.check(Op{Kind: OpClose}) }
