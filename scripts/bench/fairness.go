package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// fairness is how a reader fares beside a writer of the same disk.
type fairness struct {
	Target  string     `json:"target"`
	Reader  sample     `json:"reader"`   // medians
	Alone   sample     `json:"alone"`    // the same reader without the writer
	WriteMB float64    `json:"write_mb"` // the writer's 10⁶ bytes a second
	Runs    [][]sample `json:"runs"`     // reader and writer
}

var (
	quietReader = cell{RW: "randread", BS: kib4, QD: 1, Jobs: 1}
	greedWriter = cell{RW: "write", BS: mib1, QD: 128, Jobs: 1}
)

// measureFairness puts a reader of 4 KiB at depth 1 beside a writer of 1 MiB at
// depth 128, on connections of their own to the same disk.
func measureFairness(ctx context.Context, o *options, s *stage, res *result) error {
	names := plainColumns(o)
	all := map[string]*fairness{}
	for _, name := range names {
		all[name] = &fairness{Target: name}
	}
	alone, writes := map[string][]sample{}, map[string][]float64{}
	for rep := range o.reps {
		turn := slices.Clone(names)
		if rep%2 == 1 {
			slices.Reverse(turn)
		}
		for _, name := range turn {
			progress("fairness: turn %d of %d, %s", rep+1, o.reps, name)
			t := s.find(name)
			a, err := measure(ctx, s, t, quietReader, o.time)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			reader, writer, err := pair(ctx, s, t, o.time)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			alone[name] = append(alone[name], a)
			writes[name] = append(writes[name], writer.MBps)
			all[name].Runs = append(all[name].Runs, []sample{reader, writer})
		}
	}
	for _, name := range names {
		f := all[name]
		var readers []sample
		for _, run := range f.Runs {
			readers = append(readers, run[0])
		}
		f.Reader, f.Alone, f.WriteMB = medians(readers), medians(alone[name]), median(writes[name])
		res.Fairness = append(res.Fairness, *f)
	}
	clearProgress()
	fmt.Print("\n" + fairnessTable(res))
	return saveResult(o, res)
}

// pair runs both at once; the reader begins after the writer and ends before
// it.
func pair(ctx context.Context, s *stage, t *target, d time.Duration) (reader, writer sample, err error) {
	const lead = 300 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := startFio(ctx, s.dir, work{cell: greedWriter, uri: t.uri, size: s.size, time: d + 4*lead})
	if err != nil {
		return reader, writer, err
	}
	select {
	case <-time.After(2 * lead):
	case <-ctx.Done():
	}
	reader, _, err = runFio(ctx, s.dir, work{cell: quietReader, uri: t.uri, size: s.size, time: d})
	if err != nil {
		cancel()
		_, _, _ = w.wait() // only its end matters
		return reader, writer, err
	}
	writer, _, err = w.wait()
	return reader, writer, err
}

// plainColumns are the encrypted disks of all builds, and the peers.
func plainColumns(o *options) (names []string) {
	one := *o
	one.variants = []string{o.variants[0]}
	return columns(&one)
}

func fairnessTable(res *result) string {
	if len(res.Fairness) == 0 {
		return ""
	}
	rows := [][]string{{"reader of 4 KiB QD1 beside a writer of 1 MiB QD128", "p50 µs", "p99 µs", "p99.9 µs", "p99 / " + res.Main + "'s", "reads/s", "reader alone: p99 µs", "writer MB/s"}}
	var main float64
	for _, f := range res.Fairness {
		if f.Target == res.Main {
			main = f.Reader.P99
		}
	}
	for _, f := range res.Fairness {
		rows = append(rows, []string{
			f.Target, number(f.Reader.P50), number(f.Reader.P99), number(f.Reader.P999), number(ratio(f.Reader.P99, main)),
			number(f.Reader.Ops), number(f.Alone.P99), number(f.WriteMB),
		})
	}
	return textTable(rows)
}
