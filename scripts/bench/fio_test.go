package main

import (
	"errors"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// As fio 3.33 prints it, shortened; it says hello on the same stream.
const fioOutput = `fio: connected to NBD server
{
  "fio version" : "fio-3.33",
  "jobs" : [
    {
      "jobname" : "bench",
      "error" : ERROR,
      "job options" : {"rw" : "randrw"},
      "mixed" : {
        "bw_bytes" : 488491933,
        "iops" : 119260.726073,
        "runtime" : 303,
        "total_ios" : TOTAL,
        "clat_ns" : {
          "min" : 61395,
          "percentile" : {"50.000000" : 179200, "99.000000" : 5210112, "99.900000" : 11206656}
        }
      }
    }
  ]
}
`

func fioSays(errno, total string) []byte {
	return []byte(strings.NewReplacer("ERROR", errno, "TOTAL", total).Replace(fioOutput))
}

func TestParseFio(t *testing.T) {
	s, ops, err := parseFio(fioSays("0", "36136"))
	if err != nil {
		t.Fatal(err)
	}
	want := sample{Ops: 119260.726073, MBps: 488.491933, P50: 179.2, P99: 5210.112, P999: 11206.656}
	if s != want || ops != 36136 {
		t.Errorf("%+v and %d operations, want %+v and 36136", s, ops, want)
	}
	for name, b := range map[string][]byte{
		"empty":            nil,
		"words only":       []byte("fio: no such engine\n"),
		"cut short":        fioSays("0", "36136")[:300],
		"no operation":     fioSays("0", "0"),
		"without mixed":    []byte(`{"jobs":[{"error":0,"read":{"iops":1}}]}`),
		"no job":           []byte(`{"jobs":[]}`),
		"several, ungroup": []byte(`{"jobs":[{"mixed":{"total_ios":1}},{"mixed":{"total_ios":1}}]}`),
	} {
		if _, _, err := parseFio(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, _, err := parseFio(fioSays("5", "36136")); !errors.Is(err, syscall.EIO) {
		t.Errorf("an operation that failed with EIO: %v", err)
	}
}

func TestFioArgs(t *testing.T) {
	const size = 1 << 30
	has := func(c cell, d time.Duration, want, not []string) {
		t.Helper()
		args := fioArgs(work{cell: c, uri: "nbd+unix:///x?socket=/s", size: size, time: d}, "/out")
		for _, w := range want {
			if !slices.Contains(args, w) {
				t.Errorf("%s: no %s in %q", c.name(), w, args)
			}
		}
		for _, n := range not {
			if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, n) }) {
				t.Errorf("%s: has %s: %q", c.name(), n, args)
			}
		}
	}
	has(cell{RW: "randread", BS: kib4, QD: 32, Jobs: 1}, 1500*time.Millisecond,
		[]string{"--runtime=1500ms", "--time_based", "--bs=4096", "--iodepth=32", "--size=1073741824", "--uri=nbd+unix:///x?socket=/s"},
		[]string{"--numjobs", "--rwmixread", "--offset_increment"})
	has(cell{RW: "randrw", BS: kib4, QD: 32, Jobs: 4}, time.Second, []string{"--numjobs=4", "--rwmixread=70", "--size=1073741824"}, []string{"--offset_increment"})
	has(cell{RW: "write", BS: mib1, QD: 8, Jobs: 4}, time.Second, []string{"--offset_increment=268435456", "--size=268435456"}, nil)
	// 64 shares of whole MiB; no connection reaches past the end.
	has(cell{RW: "read", BS: kib128, QD: 16, Jobs: 3}, time.Second, []string{"--offset_increment=357564416", "--size=357564416"}, nil)
	// Cold, a block read again would be warm.
	has(cell{RW: "randread", BS: kib4, QD: 32, Jobs: 1, Cold: true}, time.Second, []string{"--runtime=1000ms"}, []string{"--time_based", "--norandommap"})
	has(cell{RW: "write", BS: mib1, QD: 8, Jobs: 1}, 0, nil, []string{"--runtime", "--time_based"})
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{
		{nil, 0},
		{[]float64{7}, 7},
		{[]float64{9, 1}, 5},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 100, 1, 2}, 3},
	} {
		given := slices.Clone(c.v)
		if got := median(c.v); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.v, got, c.want)
		}
		if !slices.Equal(given, c.v) {
			t.Errorf("median changed its argument: %v", c.v)
		}
	}
}

func TestMediansOfEachFigure(t *testing.T) {
	got := medians([]sample{{Ops: 1, CPU: 9, P99: 5}, {Ops: 3, CPU: 7, P99: 6}, {Ops: 2, CPU: 8, P99: 1}})
	if want := (sample{Ops: 2, CPU: 8, P99: 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestSpread(t *testing.T) {
	if got := spread([]sample{{Ops: 90}, {Ops: 100}, {Ops: 130}}); math.Abs(got-0.4) > 1e-9 {
		t.Errorf("spread %v, want 0.4", got)
	}
	if got := spread(nil); got != 0 {
		t.Errorf("spread of nothing: %v", got)
	}
}
