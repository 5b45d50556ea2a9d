package blockdev

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// queue is a RangeLock with the ranges that were granted, in order.
type queue struct {
	RangeLock
	granted []*Range
}

func (q *queue) add(off, n int64, exclusive bool) *Range {
	r := &Range{Off: off, Len: n, Exclusive: exclusive}
	r.Granted = func(r *Range) { q.granted = append(q.granted, r) }
	if q.Acquire(r) {
		q.granted = append(q.granted, r)
	}
	return r
}

func (q *queue) has(r ...*Range) bool {
	for _, r := range r {
		if !slices.Contains(q.granted, r) {
			return false
		}
	}
	return true
}

func TestRangeLockConflicts(t *testing.T) {
	for _, c := range []struct {
		name          string
		aOff, aLen    int64
		aEx           bool
		bOff, bLen    int64
		bEx, together bool
	}{
		{"readers of the same range", 0, 4096, false, 0, 4096, false, true},
		{"a reader and a writer", 0, 4096, false, 0, 4096, true, false},
		{"a writer and a reader", 0, 4096, true, 0, 4096, false, false},
		{"writers of the same granule", 0, 512, true, 0, 512, true, false},
		{"writers of neighbouring granules", 0, 512, true, 512, 512, true, true},
		{"writers of neighbouring granules of a 4096-byte block", 512, 1024, true, 1536, 512, true, true},
		{"writers of different bytes of one granule", 0, 1, true, 511, 1, true, false},
		{"bytes on both sides of a granule's border", 511, 1, true, 512, 1, true, true},
		{"a range across the border", 511, 2, true, 1023, 1, true, false},
		{"nothing and everything", 512, 0, true, 0, 4096, true, true},
		{"a range within a range", 0, 1 << 40, true, 1 << 39, 1, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var q queue
			a := q.add(c.aOff, c.aLen, c.aEx)
			b := q.add(c.bOff, c.bLen, c.bEx)
			if !q.has(a) {
				t.Error("the first is not granted")
			}
			if q.has(b) != c.together {
				t.Errorf("the second is granted: %v, want %v", q.has(b), c.together)
			}
			q.Release(a)
			if !q.has(b) {
				t.Error("the second is not granted after the first was released")
			}
		})
	}
}

func TestRangeLockIsFIFO(t *testing.T) {
	var q queue
	w1 := q.add(0, 512, true)
	w2 := q.add(0, 1024, true)
	r := q.add(512, 512, false)   // free now, but came after w2
	far := q.add(4096, 512, true) // meets nobody
	w3 := q.add(0, 512, true)
	if !q.has(w1, far) || q.has(w2) || q.has(r) || q.has(w3) {
		t.Fatal("granted other ranges than the first and the far one")
	}
	q.Release(w1)
	if !q.has(w2) || q.has(r) || q.has(w3) {
		t.Fatal("want the second writer alone after the first")
	}
	q.Release(w2)
	if !slices.Equal(q.granted, []*Range{w1, far, w2, r, w3}) {
		t.Fatal("not granted in order of arrival")
	}
}

func TestRangeLockReadersDontOvertakeWriter(t *testing.T) {
	var q queue
	r1 := q.add(0, 4096, false)
	w := q.add(0, 512, true)
	r2 := q.add(0, 4096, false)
	q.Release(r1)
	if !q.has(w) || q.has(r2) {
		t.Fatal("a later reader overtook the writer")
	}
	q.Release(w)
	if !q.has(r2) {
		t.Fatal("the reader waits for nobody")
	}
}

func TestRangeLockReleaseOfWaiting(t *testing.T) {
	for name, end := range map[string]func(*queue, *Range) bool{
		"Release": func(q *queue, r *Range) bool { q.Release(r); return true },
		"Cancel":  func(q *queue, r *Range) bool { return q.Cancel(r) },
	} {
		t.Run(name, func(t *testing.T) {
			var q queue
			r1 := q.add(0, 512, false)
			w := q.add(0, 512, true)
			r2 := q.add(0, 512, false)
			if !end(&q, w) {
				t.Fatal("a waiting range can't be ended")
			}
			if !q.has(r2) || q.has(w) {
				t.Fatal("ending the writer must grant the reader behind it, not the writer")
			}
			q.Release(r1)
			q.Release(r2)
			if q.has(w) || q.head != nil || q.tail != nil {
				t.Fatal("something is left")
			}
		})
	}
}

func TestRangeLockCancelOfGranted(t *testing.T) {
	var q queue
	a, b := q.add(0, 512, true), q.add(0, 512, true)
	if q.Cancel(a) {
		t.Fatal("cancelled a range that was granted at once")
	}
	q.Release(a)
	if q.Cancel(b) {
		t.Fatal("cancelled a range that was granted later")
	}
	if c := q.add(0, 1, false); q.has(c) {
		t.Fatal("a cancel that says no released the range")
	}
}

func TestRangeLockTryAcquire(t *testing.T) {
	var q queue
	w := q.add(0, 512, true)
	r := &Range{Off: 100, Len: 10}
	if q.TryAcquire(r) {
		t.Fatal("granted beside a writer")
	}
	q.Release(w)
	if !q.TryAcquire(r) {
		t.Fatal("not granted though free")
	}
	if w := q.add(0, 512, true); q.has(w) {
		t.Fatal("a writer is granted beside what TryAcquire granted")
	}
}

// TestRangeLockAgainstModel makes random calls and checks after each that just
// those ranges are granted that no earlier one conflicts with.
func TestRangeLockAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var q queue
		var live []*Range // in order of arrival
		free := func(i int) bool {
			for _, o := range live[:i] {
				r := live[i]
				if (o.Exclusive || r.Exclusive) && overlap(o, r) {
					return false
				}
			}
			return true
		}
		for step := range 300 {
			switch rng.IntN(5) {
			case 0, 1:
				live = append(live, q.add(rng.Int64N(8000), rng.Int64N(2000), rng.IntN(2) == 0))
			case 2:
				r := &Range{Off: rng.Int64N(8000), Len: rng.Int64N(2000), Exclusive: rng.IntN(2) == 0}
				live = append(live, r)
				want := free(len(live) - 1)
				if got := q.TryAcquire(r); got != want {
					t.Fatalf("seed %d step %d: TryAcquire %v, want %v", seed, step, got, want)
				}
				if want {
					q.granted = append(q.granted, r)
				} else {
					live = live[:len(live)-1]
				}
			case 3, 4:
				if len(live) == 0 {
					continue
				}
				i := rng.IntN(len(live))
				r := live[i]
				if waits := !free(i); rng.IntN(2) == 0 {
					if got := q.Cancel(r); got != waits {
						t.Fatalf("seed %d step %d: Cancel %v, want %v", seed, step, got, waits)
					}
					if !waits {
						continue
					}
				} else {
					q.Release(r)
				}
				live = slices.Delete(live, i, i+1)
			}
			for i, r := range live {
				if got, want := q.has(r), free(i); got != want {
					t.Fatalf("seed %d step %d: range %d of %d granted: %v, want %v", seed, step, i, len(live), got, want)
				}
			}
		}
	}
}

// overlap tells it granule by granule.
func overlap(a, b *Range) bool {
	in := func(r *Range, g int64) bool {
		return r.Len > 0 && r.Off < g+512 && r.Off+r.Len > g
	}
	for g := int64(0); g < 10240; g += 512 {
		if in(a, g) && in(b, g) {
			return true
		}
	}
	return false
}

// TestRangeLockUnderLoad: no two holders that conflict, from many goroutines.
func TestRangeLockUnderLoad(t *testing.T) {
	var l RangeLock
	var writers, readers [16]atomic.Int32
	var wg sync.WaitGroup
	for id := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(id), 1))
			granted := make(chan struct{}, 1)
			r := &Range{Granted: func(*Range) { granted <- struct{}{} }}
			for range 2000 {
				r.Off, r.Len, r.Exclusive = rng.Int64N(7000), 1+rng.Int64N(1000), rng.IntN(2) == 0
				if !l.Acquire(r) {
					if rng.IntN(4) == 0 && l.Cancel(r) {
						continue
					}
					<-granted
				}
				for g := r.Off / 512; g <= (r.Off+r.Len-1)/512; g++ {
					if r.Exclusive {
						if writers[g].Add(1) != 1 || readers[g].Load() != 0 {
							t.Error("a writer is not alone")
						}
					} else {
						readers[g].Add(1)
						if writers[g].Load() != 0 {
							t.Error("a reader beside a writer")
						}
					}
				}
				for g := r.Off / 512; g <= (r.Off+r.Len-1)/512; g++ {
					if r.Exclusive {
						writers[g].Add(-1)
					} else {
						readers[g].Add(-1)
					}
				}
				l.Release(r)
			}
		})
	}
	wg.Wait()
	if l.head != nil || l.tail != nil {
		t.Error("ranges are left")
	}
}
