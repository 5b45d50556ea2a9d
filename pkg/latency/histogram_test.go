package latency

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var quantiles = []float64{0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1}

// exact is Quantile by sorting.
func exact(all []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(all))
	return s[min(max(int(math.Ceil(q*float64(len(s)))), 1), len(s))-1]
}

func wantExact(t *testing.T, h *Histogram, all []time.Duration) {
	t.Helper()
	if h.Count() != uint64(len(all)) || h.Max() != slices.Max(all) {
		t.Fatalf("%d up to %d, want %d up to %d", h.Count(), h.Max(), len(all), slices.Max(all))
	}
	for _, q := range quantiles {
		got, want := h.Quantile(q), exact(all, q)
		if off := math.Abs(float64(got - want)); off > float64(want)/256+0.5 {
			t.Errorf("quantile %v: %d, exact %d: off by %.2f %%", q, got, want, 100*off/float64(want))
		}
	}
}

func TestQuantilesAgainstSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() time.Duration{
		"one value":      func() time.Duration { return 12345 },
		"small, exact":   func() time.Duration { return time.Duration(rng.IntN(128)) },
		"uniform":        func() time.Duration { return time.Duration(rng.IntN(1e6)) },
		"long tail":      func() time.Duration { return time.Duration(10_000 * math.Exp(3*rng.NormFloat64())) },
		"all magnitudes": func() time.Duration { return time.Duration(rng.Uint64() >> (1 + rng.IntN(63))) },
		"two peaks": func() time.Duration {
			if rng.IntN(1000) == 0 {
				return 5 * time.Second
			}
			return 8 * time.Microsecond
		},
	} {
		t.Run(name, func(t *testing.T) {
			var one, a, b, joined Histogram
			var all []time.Duration
			for i := range 20_000 {
				d := draw()
				all = append(all, d)
				one.Record(d)
				[]*Histogram{&a, &b}[i%2].Record(d)
			}
			wantExact(t, &one, all)
			joined.Merge(&a)
			joined.Merge(&b)
			wantExact(t, &joined, all)
		})
	}
}

// TestBucketsJoin: no value between two buckets, none of two, and none outside.
func TestBucketsJoin(t *testing.T) {
	edges := []uint64{0, 1, sub - 1, math.MaxInt64}
	for bit := range 63 {
		for _, d := range []uint64{0, 1, 2, 3} {
			edges = append(edges, 1<<bit+d, 1<<bit-d&(1<<bit-1))
		}
	}
	slices.Sort(edges)
	last := -1
	for _, v := range edges {
		i := bucket(v)
		if i < last || i >= buckets {
			t.Fatalf("%d falls into bucket %d of %d after %d", v, i, buckets, last)
		}
		if m := float64(middle(i)); math.Abs(m-float64(v)) > float64(v)/256+0.5 {
			t.Fatalf("bucket %d of %d is told as %.0f", i, v, m)
		}
		last = i
	}
	if i := bucket(math.MaxInt64); i != buckets-1 {
		t.Fatalf("the largest value is in bucket %d of %d", i, buckets)
	}
}

func TestFewValues(t *testing.T) {
	var h, empty Histogram
	h.Record(1_003_000) // in its bucket's upper half
	h.Merge(&empty)
	if got := h.Quantile(0.5); got != 1_003_000 {
		t.Errorf("of one value: %d", got)
	}
	var three Histogram
	for _, d := range []time.Duration{30, 10, 20} {
		three.Record(d)
	}
	for q, want := range map[float64]time.Duration{0: 10, 0.3: 10, 0.5: 20, 0.67: 30, 0.99: 30, 1: 30} {
		if got := three.Quantile(q); got != want {
			t.Errorf("quantile %v of 10, 20, 30: %d, want %d", q, got, want)
		}
	}
}

func TestEmptyAndNegative(t *testing.T) {
	var h, empty Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 {
		t.Error("an empty histogram tells of something")
	}
	h.Record(-time.Second)
	h.Merge(&empty)
	if h.Count() != 1 || h.Quantile(1) != 0 {
		t.Errorf("%d, %v", h.Count(), h.Quantile(1))
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	h := new(Histogram)
	if n := testing.AllocsPerRun(1000, func() { h.Record(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	h := new(Histogram)
	for i := range b.N {
		h.Record(time.Duration(i))
	}
}
