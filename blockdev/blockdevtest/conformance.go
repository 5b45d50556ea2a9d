package blockdevtest

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"sealdisk/blockdev"
)

// Conformance is the suite that every blockdev.Device passes.
type Conformance struct {
	// Open makes a device of size bytes that reads as zeros, durably. What it
	// made before is closed by then.
	Open func(t testing.TB, size int64) blockdev.Device
	// Reopen, if not nil, opens again what Open made last, after it was closed.
	Reopen func(t testing.TB) blockdev.Device
	// TrimZeros: the whole granules of a trimmed range read as zeros; else they
	// are unchanged.
	TrimZeros bool
	// FastZero is honoured without NoHole; FastNoHole: with it too.
	FastZero, FastNoHole bool
	// Serialized: the device needs no exclusion by its callers.
	Serialized bool
}

const suiteSize = 256 << 10

// Run runs the suite.
func (c Conformance) Run(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(Conformance, *testing.T)
	}{
		{"size", Conformance.testSize},
		{"bounds", Conformance.testBounds},
		{"random requests against a byte array", Conformance.testModel},
		{"every alignment around a granule", Conformance.testAlignments},
		{"trim", Conformance.testTrim},
		{"write zeroes", Conformance.testZeroes},
		{"fast zero", Conformance.testFastZero},
		{"read now", Conformance.testReadNow},
		{"extents cover and tell no zeros from data", Conformance.testExtents},
		{"cache", Conformance.testCache},
		{"neighbouring granules at once", Conformance.testNeighbours},
		{"overlapping requests at once", Conformance.testOverlaps},
		{"flushes at once", Conformance.testFlushes},
		{"close", Conformance.testClose},
		{"contents stay", Conformance.testReopen},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(c, t) })
	}
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// open opens a device that the test closes.
func (c Conformance) open(t *testing.T, size int64) blockdev.Device {
	t.Helper()
	d := c.Open(t, size)
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// want checks the whole contents.
func want(t testing.TB, d blockdev.Device, model []byte) {
	t.Helper()
	got := make([]byte, len(model))
	fill(got, Rand(1)) // a read fills all of p, zeros too
	must(t, "read all", d.ReadAt(got, 0))
	if !bytes.Equal(got, model) {
		i := firstDiff(got, model)
		t.Fatalf("contents differ from byte %d on: % x…, want % x…", i, got[i:min(i+8, len(got))], model[i:min(i+8, len(model))])
	}
}

// filled opens a device full of random bytes and returns these.
func (c Conformance) filled(t *testing.T, size int64) (blockdev.Device, []byte) {
	t.Helper()
	d := c.open(t, size)
	model := make([]byte, size)
	fill(model, Rand(7))
	must(t, "fill", d.WriteAt(bytes.Clone(model), 0, 0))
	return d, model
}

func (c Conformance) testSize(t *testing.T) {
	for _, size := range []int64{4096, 5 * 4096, suiteSize} {
		d := c.open(t, size)
		if d.Size() != size {
			t.Errorf("Size is %d, want %d", d.Size(), size)
		}
		want(t, d, make([]byte, size))
		must(t, "close", d.Close())
	}
}

func (c Conformance) testBounds(t *testing.T) {
	d, model := c.filled(t, 8192)
	ranges := []struct{ off, n int64 }{
		{8192, 1}, {8191, 2}, {0, 8193}, {-1, 1}, {-512, 1024}, {1 << 40, 1}, {math.MaxInt64, 1}, {math.MaxInt64 - 511, 512},
		{math.MinInt64, 512}, {12288, 0},
	}
	for _, r := range ranges {
		p := make([]byte, r.n)
		calls := map[string]error{
			"ReadAt":          d.ReadAt(p, r.off),
			"WriteAt":         d.WriteAt(p, r.off, 0),
			"WriteAt FUA":     d.WriteAt(p, r.off, blockdev.FUA),
			"Trim":            d.Trim(r.off, r.n, 0),
			"WriteZeroes":     d.WriteZeroes(r.off, r.n, 0),
			"WriteZeroes all": d.WriteZeroes(r.off, r.n, blockdev.FUA|blockdev.NoHole),
			"Cache":           d.Cache(r.off, r.n),
		}
		_, calls["Extents"] = d.Extents(nil, r.off, r.n, 1)
		for name, err := range calls {
			if !errors.Is(err, blockdev.ErrOutOfRange) {
				t.Errorf("%s of %d bytes at %d: %v, want ErrOutOfRange", name, r.n, r.off, err)
			}
		}
	}
	for name, err := range map[string]error{
		"Trim":        d.Trim(0, -512, 0),
		"WriteZeroes": d.WriteZeroes(4096, -4096, 0),
		"Trim far":    d.Trim(4096, math.MaxInt64, 0),
		"Zeroes far":  d.WriteZeroes(4096, math.MaxInt64-100, 0),
	} {
		if !errors.Is(err, blockdev.ErrOutOfRange) {
			t.Errorf("%s of a bad length: %v, want ErrOutOfRange", name, err)
		}
	}
	for _, off := range []int64{0, 100, 8192} {
		must(t, "read nothing", d.ReadAt(nil, off))
		must(t, "write nothing", d.WriteAt(nil, off, blockdev.FUA))
		must(t, "trim nothing", d.Trim(off, 0, blockdev.FUA))
		must(t, "zero nothing", d.WriteZeroes(off, 0, blockdev.FUA))
	}
	want(t, d, model)
}

// testModel compares the device with a byte array under random requests.
func (c Conformance) testModel(t *testing.T) {
	seed := Seed(t, 11)
	rng := Rand(seed)
	d := c.open(t, suiteSize)
	model := make([]byte, suiteSize)
	for i := range Count(t, "SEALDISK_STEPS", 2000) {
		s := randomStep(rng, suiteSize)
		data := bytes.Clone(s.data)
		err := s.do(d)
		if errors.Is(err, blockdev.ErrNotSupported) && s.flags&blockdev.FastZero != 0 {
			continue
		}
		if err != nil {
			t.Fatalf("step %d: %v: %v", i, s, err)
		}
		switch s.kind {
		case OpRead:
			if !bytes.Equal(s.data, model[s.off:s.off+s.len]) {
				t.Fatalf("step %d: %v differs at byte %d of the read", i, s, firstDiff(s.data, model[s.off:s.off+s.len]))
			}
		case OpWrite:
			copy(model[s.off:], data)
		case OpZero:
			clear(model[s.off : s.off+s.len])
		case OpPunch:
			c.trimModel(model, s.off, s.len)
		}
	}
	want(t, d, model)
}

// trimModel does to model what Trim does.
func (c Conformance) trimModel(model []byte, off, length int64) {
	lo, hi := (off+granule-1)/granule*granule, (off+length)/granule*granule
	if c.TrimZeros && lo < hi {
		clear(model[lo:hi])
	}
}

func (c Conformance) testAlignments(t *testing.T) {
	d, model := c.filled(t, 16384)
	edges := []int64{0, 1, 7, 8, 255, 511}
	rng := Rand(3)
	for _, from := range edges {
		for _, to := range edges {
			for _, granules := range []int64{0, 1, 2, 9} {
				off, end := 2*granule+from, 2*granule+granules*granule+to
				if end <= off {
					continue
				}
				p := make([]byte, end-off)
				fill(p, rng)
				copy(model[off:], p)
				must(t, "write", d.WriteAt(p, off, 0))
				want(t, d, model)
				got := make([]byte, end-off)
				must(t, "read", d.ReadAt(got, off))
				if !bytes.Equal(got, model[off:end]) {
					t.Fatalf("[%d,%d) reads back other bytes", off, end)
				}
			}
		}
	}
}
