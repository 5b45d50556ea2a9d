package main

import "slices"

// median of some numbers; of an even count the mean of the middle two, of none 0.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// medians takes the median of each figure by itself.
func medians(runs []sample) sample {
	of := func(figure func(sample) float64) float64 {
		v := make([]float64, len(runs))
		for i, r := range runs {
			v[i] = figure(r)
		}
		return median(v)
	}
	return sample{
		Ops:  of(func(s sample) float64 { return s.Ops }),
		MBps: of(func(s sample) float64 { return s.MBps }),
		CPU:  of(func(s sample) float64 { return s.CPU }),
		P50:  of(func(s sample) float64 { return s.P50 }),
		P99:  of(func(s sample) float64 { return s.P99 }),
		P999: of(func(s sample) float64 { return s.P999 }),
	}
}

// spread is how far apart the runs' rates are: (most − least) / median.
func spread(runs []sample) float64 {
	if len(runs) == 0 {
		return 0
	}
	v := make([]float64, len(runs))
	for i, r := range runs {
		v[i] = r.Ops
	}
	m := median(v)
	if m == 0 {
		return 0
	}
	return (slices.Max(v) - slices.Min(v)) / m
}

// ratio is a/b, 0 where there is nothing to compare.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
