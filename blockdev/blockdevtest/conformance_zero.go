package blockdevtest

import (
	"bytes"
	"errors"
	"testing"

	"sealdisk/blockdev"
)

// someRanges are ranges of 64 KiB: aligned to blocks, to granules, to nothing,
// within a granule, empty.
var someRanges = []struct{ off, n int64 }{
	{0, 65536}, {4096, 8192}, {512, 512}, {1024, 5120}, {4608, 3584}, {100, 50}, {500, 30}, {511, 513}, {1, 65534},
	{3000, 9000}, {700, 100}, {1000, 600}, {40960, 0},
}

func (c Conformance) testTrim(t *testing.T) {
	for _, flags := range []blockdev.Flags{0, blockdev.FUA} {
		for _, r := range someRanges {
			d, model := c.filled(t, 65536)
			must(t, "trim", d.Trim(r.off, r.n, flags))
			c.trimModel(model, r.off, r.n)
			want(t, d, model)
			must(t, "trim again", d.Trim(r.off, r.n, flags))
			want(t, d, model)
			p := []byte("written after the trim")
			copy(model[r.off:], p)
			must(t, "write", d.WriteAt(p, r.off, 0))
			want(t, d, model)
			must(t, "close", d.Close())
		}
	}
}

func (c Conformance) testZeroes(t *testing.T) {
	for _, flags := range []blockdev.Flags{0, blockdev.NoHole, blockdev.FUA, blockdev.FUA | blockdev.NoHole} {
		for _, r := range someRanges {
			d, model := c.filled(t, 65536)
			must(t, "zero", d.WriteZeroes(r.off, r.n, flags))
			clear(model[r.off : r.off+r.n])
			want(t, d, model)
			must(t, "zero again", d.WriteZeroes(r.off, r.n, flags))
			want(t, d, model)
			if r.off > 0 {
				p := bytes.Repeat([]byte{'x'}, 600)
				copy(model[r.off-1:], p)
				must(t, "write", d.WriteAt(p, r.off-1, 0))
				want(t, d, model)
			}
			must(t, "close", d.Close())
		}
	}
}

// testFastZero: FastZero does what is asked, or fails and changes nothing; and
// a call of length 0 tells which.
func (c Conformance) testFastZero(t *testing.T) {
	for _, fast := range []struct {
		flags blockdev.Flags
		works bool
	}{
		{blockdev.FastZero, c.FastZero},
		{blockdev.FastZero | blockdev.FUA, c.FastZero},
		{blockdev.FastZero | blockdev.NoHole, c.FastNoHole},
	} {
		for _, r := range someRanges {
			d, model := c.filled(t, 65536)
			err := d.WriteZeroes(r.off, r.n, fast.flags)
			switch {
			case err == nil && fast.works:
				clear(model[r.off : r.off+r.n])
			case errors.Is(err, blockdev.ErrNotSupported) && !fast.works:
			default:
				t.Fatalf("flags %#x, %d bytes at %d: %v, should work: %v", fast.flags, r.n, r.off, err, fast.works)
			}
			want(t, d, model)
			must(t, "close", d.Close())
		}
	}
}

func (c Conformance) testReadNow(t *testing.T) {
	d, model := c.filled(t, 65536)
	now, ok := d.(blockdev.NowReader)
	if !ok {
		return
	}
	must(t, "zero", d.WriteZeroes(8192, 4096, 0))
	clear(model[8192:12288])
	for _, r := range someRanges {
		p := make([]byte, r.n)
		fill(p, Rand(1))
		err := now.ReadNow(p, r.off)
		if errors.Is(err, blockdev.ErrWouldBlock) {
			continue
		}
		must(t, "read now", err)
		if !bytes.Equal(p, model[r.off:r.off+r.n]) {
			t.Errorf("%d bytes at %d differ from what was written", r.n, r.off)
		}
	}
	if err := now.ReadNow(make([]byte, 2), 65535); !errors.Is(err, blockdev.ErrOutOfRange) && !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("ReadNow past the end: %v", err)
	}
}

func (c Conformance) testExtents(t *testing.T) {
	d := c.open(t, suiteSize)
	model := make([]byte, suiteSize)
	rng := Rand(Seed(t, 5))
	for range 30 {
		s := randomStep(rng, suiteSize)
		if s.kind == OpWrite {
			copy(model[s.off:], s.data)
			must(t, s.String(), s.do(d))
		}
	}
	must(t, "zero", d.WriteZeroes(65536, 65536, 0))
	clear(model[65536:131072])
	for range 200 {
		off, n := randomRange(rng, suiteSize)
		if rng.IntN(4) == 0 {
			off, n = 0, suiteSize
		}
		most := rng.IntN(5)
		given := []blockdev.Extent{{Off: -1}}
		e, err := d.Extents(given, off, n, most)
		must(t, "extents", err)
		if len(e) < 2 || e[0].Off != -1 || len(e) > 1+max(most, 1) {
			t.Fatalf("Extents(%d, %d, max %d) appended %d", off, n, most, len(e)-1)
		}
		at := off
		for _, x := range e[1:] {
			if x.Off != at || x.Len <= 0 || x.Off+x.Len > off+n {
				t.Fatalf("extents of [%d,+%d) don't follow on each other: %v", off, n, e[1:])
			}
			if x.Zero && firstDiff(model[x.Off:x.Off+x.Len], make([]byte, x.Len)) < int(x.Len) {
				t.Fatalf("extent %v is said to be zeros and is not", x)
			}
			at += x.Len
		}
		if len(e)-1 < max(most, 1) && at != off+n {
			t.Fatalf("extents of [%d,+%d) end at %d with %d of %d given", off, n, at, len(e)-1, most)
		}
	}
	if e, err := d.Extents(nil, 100, 0, 4); err != nil || len(e) != 0 {
		t.Errorf("extents of nothing: %v, %v", e, err)
	}
}

func (c Conformance) testCache(t *testing.T) {
	d, model := c.filled(t, 65536)
	for _, r := range someRanges {
		must(t, "cache", d.Cache(r.off, r.n))
	}
	want(t, d, model)
}
