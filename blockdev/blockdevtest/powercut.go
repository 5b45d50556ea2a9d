package blockdevtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"sealdisk/blockdev"
)

// PowerCut cuts a device's power under many random schedules.
type PowerCut struct {
	// Size of the storage, in bytes; zeros at the start. 0 is 40 KiB.
	Size int64
	// Open opens the device on a storage.
	Open func(st blockdev.Storage) (blockdev.Device, error)
	// TrimZeros: trimmed granules read as zeros where the storage punches or
	// zeroes.
	TrimZeros bool
	// Faults: the storage is at times full, short-spoken, without punching, or
	// fails to sync.
	Faults bool
	// Workers is how many requests are under way at a time, behind a RangeLock;
	// 0 and 1: one.
	Workers int
	// Cuts is how many times the power is cut in each schedule; 0 is 6.
	Cuts int
}

// Run runs n schedules, of which the first has the given seed, the next the
// seed after it and so on.
func (c PowerCut) Run(t *testing.T, seed uint64, n int) {
	t.Helper()
	undecided := 0
	for i := range uint64(n) {
		u, err := c.Schedule(seed + i)
		if err != nil {
			t.Fatalf("schedule with seed %d: %v", seed+i, err)
		}
		undecided += u
	}
	if n > 100 && undecided == 0 {
		t.Fatal("no power cut had anything to lose: the schedules test nothing")
	}
}

// Schedule runs one schedule and cuts the power. It returns how many cuts came
// while something was not durable.
func (c PowerCut) Schedule(seed uint64) (undecided int, err error) {
	rng := Rand(seed)
	if c.Size == 0 {
		c.Size = 40 << 10
	}
	rec := NewRecorder(make([]byte, c.Size))
	trimZeros := c.TrimZeros
	if c.Faults && !scriptFaults(rec, rng) {
		trimZeros = false
	}
	d, err := c.Open(rec)
	if err != nil {
		return 0, err
	}
	o, err := NewOracle(d, rec.Pos, trimZeros)
	if err != nil {
		return 0, err
	}
	if err := c.work(o, rng); err != nil {
		return 0, err
	}
	got := make([]byte, d.Size())
	if err := d.ReadAt(got, 0); err != nil {
		return 0, err
	}
	if want := o.Contents(); !bytes.Equal(got, want) {
		return 0, fmt.Errorf("reads differ from what was written, from byte %d on", firstDiff(got, want))
	}
	cuts := c.Cuts
	if cuts == 0 {
		cuts = 6
	}
	for i := range cuts {
		pos := rec.Pos()
		if i > 0 {
			pos = rng.IntN(pos + 1)
		}
		out := rec.Crash(pos)
		if out.Undecided() > 0 {
			undecided++
		}
		for _, img := range [][]byte{out.Oldest(), out.Newest(), out.Pick(rng), out.Pick(rng)} {
			after, err := c.Open(NewRecorder(img))
			if err != nil {
				return 0, fmt.Errorf("open after the power cut: %w", err)
			}
			if err := o.Verify(after, pos); err != nil {
				return 0, err
			}
		}
	}
	return undecided, nil
}

// scriptFaults gives the storage faults at random and tells whether it can
// still zero.
func scriptFaults(rec *Recorder, rng *rand.Rand) (canZero bool) {
	rec.Faults = &Faults{}
	one := func(p int) bool { return rng.IntN(p) == 0 }
	if one(3) {
		rec.MaxIO = 1 + rng.IntN(3000)
	}
	if one(4) {
		rec.Space = 10 + rng.IntN(60)
	}
	for _, k := range []Kind{OpRead, OpWrite, OpWriteSync, OpPunch, OpZero, OpSync} {
		if one(6) {
			rec.Faults.Add(Rule{Kinds: k, Skip: rng.IntN(8), Times: 1 + rng.IntN(3), Err: syscall.EINTR})
		}
	}
	if one(3) {
		rec.Faults.Add(Rule{Kinds: OpWriteSync, Err: syscall.EOPNOTSUPP})
	}
	noPunch, noZero := one(4), one(4)
	if noPunch {
		rec.Faults.Add(Rule{Kinds: OpPunch, Err: syscall.EOPNOTSUPP})
	}
	if noZero {
		rec.Faults.Add(Rule{Kinds: OpZero, Err: syscall.EOPNOTSUPP})
	}
	if one(4) {
		rec.Faults.Add(Rule{Kinds: OpSync | OpWriteSync, Skip: rng.IntN(6), Times: 1, Err: syscall.EIO})
	}
	if one(6) {
		rec.Faults.Add(Rule{Kinds: OpWrite | OpPunch, Skip: 1 + rng.IntN(20), Times: 1, Err: syscall.EIO})
	}
	return !noPunch || !noZero
}

// work runs the requests.
func (c PowerCut) work(o *Oracle, rng *rand.Rand) error {
	if c.Workers < 2 {
		return c.requests(o, rng, 4+rng.IntN(40))
	}
	d := blockdev.Serialize(o)
	errs := make([]error, c.Workers)
	var wg sync.WaitGroup
	for i := range errs {
		own := Rand(rng.Uint64())
		wg.Go(func() { errs[i] = c.requests(d, own, 4+own.IntN(20)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c PowerCut) requests(d blockdev.Device, rng *rand.Rand, n int) error {
	for range n {
		s := randomStep(rng, d.Size())
		err := s.do(d)
		if err == nil || c.Faults && expected(err) ||
			errors.Is(err, blockdev.ErrNotSupported) && s.flags&blockdev.FastZero != 0 {
			continue
		}
		return fmt.Errorf("%v: %w", s, err)
	}
	return nil
}

// expected tells whether a fault may show as err.
func expected(err error) bool {
	return errors.Is(err, blockdev.ErrIO) || errors.Is(err, blockdev.ErrNoSpace) || errors.Is(err, blockdev.ErrSyncFailed)
}

func firstDiff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
