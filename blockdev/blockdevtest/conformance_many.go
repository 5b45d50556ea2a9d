package blockdevtest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"sealdisk/blockdev"
)

// together runs n workers and fails the test with the first error.
func together(t *testing.T, n int, work func(i int) error) {
	t.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = work(i) })
	}
	wg.Wait()
	must(t, "workers", errors.Join(errs...))
}

// testNeighbours: callers that exclude each other by granules alone don't
// disturb each other, though their granules lie side by side.
func (c Conformance) testNeighbours(t *testing.T) {
	const workers, size = 4, 65536
	d := c.open(t, size)
	seed := Seed(t, 21)
	parts := make([][]byte, workers)
	together(t, workers, func(w int) error {
		rng := Rand(seed + uint64(w))
		model := make([]byte, size)
		parts[w] = model
		for range 1000 {
			g := (rng.Int64N(size/granule/workers)*workers + int64(w)) * granule
			in := rng.Int64N(granule)
			n := 1 + rng.Int64N(granule-in)
			if rng.IntN(2) == 0 {
				in, n = 0, granule
			}
			p := make([]byte, n)
			var err error
			switch rng.IntN(4) {
			case 0, 1:
				fill(p, rng)
				copy(model[g+in:], p)
				err = d.WriteAt(p, g+in, 0)
			case 2:
				clear(model[g+in : g+in+n])
				err = d.WriteZeroes(g+in, n, 0)
			case 3:
				err = d.ReadAt(p, g+in)
				if err == nil && !bytes.Equal(p, model[g+in:g+in+n]) {
					err = fmt.Errorf("granule at %d: %d bytes at %d of it differ", g, n, in)
				}
			}
			if err != nil {
				return fmt.Errorf("worker %d: %w", w, err)
			}
		}
		return nil
	})
	whole := make([]byte, size)
	for g := 0; g < size/granule; g++ {
		copy(whole[g*granule:(g+1)*granule], parts[g%workers][g*granule:])
	}
	want(t, d, whole)
}

// testOverlaps: a device that serialises is linearizable per granule.
func (c Conformance) testOverlaps(t *testing.T) {
	d := c.open(t, 65536)
	if !c.Serialized {
		d = blockdev.Serialize(d)
	}
	Linearizable(t, []blockdev.Device{d, d, d, d}, Seed(t, 31), 150, c.TrimZeros)
}

func (c Conformance) testFlushes(t *testing.T) {
	d := c.open(t, 65536)
	together(t, 8, func(w int) error {
		for i := range 20 {
			p := bytes.Repeat([]byte{byte(w), byte(i)}, 256)
			if err := d.WriteAt(p, int64(w)*4096, blockdev.Flags(i%2)*blockdev.FUA); err != nil {
				return err
			}
			if err := d.Flush(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c Conformance) testClose(t *testing.T) {
	d := c.Open(t, 8192)
	must(t, "write", d.WriteAt(make([]byte, 700), 3, 0))
	must(t, "close", d.Close())
	p := make([]byte, 512)
	calls := map[string]error{
		"ReadAt":      d.ReadAt(p, 0),
		"WriteAt":     d.WriteAt(p, 0, 0),
		"Trim":        d.Trim(0, 512, 0),
		"WriteZeroes": d.WriteZeroes(0, 512, 0),
		"Flush":       d.Flush(),
		"Close":       d.Close(),
	}
	for name, err := range calls {
		if !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	if now, ok := d.(blockdev.NowReader); ok {
		if err := now.ReadNow(p, 0); !errors.Is(err, blockdev.ErrClosed) && !errors.Is(err, blockdev.ErrWouldBlock) {
			t.Errorf("ReadNow after Close: %v", err)
		}
	}
}

func (c Conformance) testReopen(t *testing.T) {
	if c.Reopen == nil {
		return
	}
	d, model := c.filled(t, 65536)
	must(t, "zero", d.WriteZeroes(5000, 10000, 0))
	clear(model[5000:15000])
	must(t, "trim", d.Trim(20000, 10000, blockdev.FUA))
	c.trimModel(model, 20000, 10000)
	must(t, "close", d.Close())
	d = c.Reopen(t)
	want(t, d, model)
	must(t, "close", d.Close())
}
