package blockdev

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
)

// maxPunch bounds one fallocate: it holds the inode's lock.
const maxPunch = 64 << 20

// able is what is known of an optional operation of the storage.
type able struct{ v atomic.Uint32 }

const (
	ableUnknown = iota
	ableYes
	ableNo
)

func (a *able) is(v uint32) bool { return a.v.Load() == v }
func (a *able) set(v uint32)     { a.v.Store(v) }

// learn takes what a try returned.
func (a *able) learn(err error) {
	switch {
	case err == nil:
		a.set(ableYes)
	case unsupported(err):
		a.set(ableNo)
	}
}

// unsupported tells whether the storage lacks an operation, as against failing
// at it.
func unsupported(err error) bool {
	return errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS)
}

// probeZero finds out what zeroing the file's system knows, on what lies behind
// the file's end, where nothing is, and which is given back. Block devices
// refuse that: they are found out at the first use.
func (f *File) probeZero(info StorageInfo) {
	if info.ZeroAlign > 1 {
		return
	}
	end := (info.Size + sizeUnit - 1) / sizeUnit * sizeUnit
	f.zero.learn(f.st.ZeroRange(end, sizeUnit))
	f.punch.learn(f.st.Punch(end, sizeUnit))
}

// reserve allocates the whole range.
func (f *File) reserve() error {
	for at, end := f.base, f.base+f.size; at < end; {
		n := min(end-at, 1<<30)
		err := f.st.Reserve(at, n)
		switch {
		case err == syscall.EINTR:
		case unsupported(err):
			return fmt.Errorf("preallocate: %w: %w", ErrNotSupported, err)
		case err != nil:
			return ioError("preallocate", at, int(n), err)
		default:
			at += n
		}
	}
	return nil
}

// Trim implements Device.
func (f *File) Trim(off, length int64, fl Flags) error {
	if err := f.change(off, length); err != nil {
		return err
	}
	lo, hi := inner(off, length)
	if !f.opt.Discard || lo >= hi {
		return f.fua(fl)
	}
	if err := f.zeroRange(lo, hi-lo, !f.opt.Preallocate, false); err != nil && err != ErrNotSupported {
		return err
	}
	return f.fua(fl)
}

// WriteZeroes implements Device.
func (f *File) WriteZeroes(off, length int64, fl Flags) error {
	if err := f.change(off, length); err != nil {
		return err
	}
	punch := f.opt.Discard && !f.opt.Preallocate && fl&NoHole == 0
	if err := f.zeroRange(off, length, punch, fl&FastZero == 0); err != nil {
		return err
	}
	return f.fua(fl)
}

func (f *File) fua(fl Flags) error {
	if fl&FUA == 0 {
		return nil
	}
	return f.syncs.sync()
}

// zeroRange makes a range read as zeros with the first that works of: a punch
// (where allowed), ZERO_RANGE, writing (where allowed; edges smaller than the
// storage's block are always written). ErrNotSupported, with nothing changed,
// when none does.
func (f *File) zeroRange(off, length int64, punch, write bool) error {
	at, end := f.base+off, f.base+off+length
	align := f.st.Info().ZeroAlign
	lo, hi := (at+align-1)/align*align, end/align*align
	if lo >= hi {
		lo, hi = end, end // less than a block: an edge
	}
	if able := punch && !f.punch.is(ableNo) || !f.zero.is(ableNo); !able && !write {
		return ErrNotSupported
	}
	for done := lo; done < hi; {
		n := min(hi-done, maxPunch)
		err := f.zeroPiece(done, n, punch)
		if err == ErrNotSupported && (write || done > lo) {
			err = f.writeZeros(done, n)
		}
		if err != nil {
			return err
		}
		done += n
	}
	if err := f.writeZeros(at, lo-at); err != nil {
		return err
	}
	return f.writeZeros(hi, end-hi)
}

// zeroPiece zeroes at most maxPunch bytes without writing them.
func (f *File) zeroPiece(at, n int64, punch bool) error {
	if punch && !f.punch.is(ableNo) {
		err := retryEINTR(f.st.Punch, at, n)
		f.punch.learn(err)
		if err == nil {
			return nil
		}
		if !unsupported(err) {
			return ioError("punch", at, int(n), err)
		}
	}
	if !f.zero.is(ableNo) {
		err := retryEINTR(f.st.ZeroRange, at, n)
		f.zero.learn(err)
		if err == nil {
			return nil
		}
		if !unsupported(err) {
			return ioError("zero", at, int(n), err)
		}
	}
	return ErrNotSupported
}

func retryEINTR(call func(off, n int64) error, off, n int64) error {
	for {
		if err := call(off, n); err != syscall.EINTR {
			return err
		}
	}
}

// zeros is what is written where nothing else zeroes. Never changed.
var zeros [256 << 10]byte

func (f *File) writeZeros(at, n int64) error {
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if err := f.write(zeros[:k], at, 0); err != nil {
			return err
		}
		at, n = at+k, n-k
	}
	return nil
}

// inner rounds [off, off+length) in to whole granules; lo >= hi when there is
// none.
func inner(off, length int64) (lo, hi int64) {
	lo = (off + GranuleSize - 1) &^ (GranuleSize - 1)
	hi = (off + length) &^ (GranuleSize - 1)
	return lo, hi
}
