package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// result is all that a run measured, as in results.json.
type result struct {
	Machine string    `json:"machine"`
	Began   time.Time `json:"began"`
	Main    string    `json:"main"` // the target that ratios are of
	Builds  []build   `json:"builds"`
	Columns []string  `json:"columns"`
	Reps    int       `json:"reps"`
	Seconds float64   `json:"seconds"`
	SizeMiB int       `json:"size_mib"`
	Rows    []row     `json:"rows"`

	Fairness []fairness  `json:"fairness,omitempty"`
	Memory   []memoryRow `json:"memory,omitempty"`
	Delay    string      `json:"delay,omitempty"` // lines of go test -bench
}

// empty says that nothing was measured yet.
func (r *result) empty() bool {
	return len(r.Rows) == 0 && len(r.Fairness) == 0 && len(r.Memory) == 0 && r.Delay == ""
}

// row is a cell's figures by target.
type row struct {
	Cell    cell                `json:"cell"`
	Name    string              `json:"name"`
	Targets []string            `json:"targets"`
	Median  map[string]sample   `json:"median"`
	Runs    map[string][]sample `json:"runs"`
}

// figures of a sample, as tables show them.
var figures = []struct {
	title, unit string
	of          func(sample) float64
}{
	{"Operations a second", "op/s", func(s sample) float64 { return s.Ops }},
	{"Throughput", "MB/s", func(s sample) float64 { return s.MBps }},
	{"Server's CPU time", "CPU µs/op", func(s sample) float64 { return s.CPU }},
	{"Latency, median", "p50 µs", func(s sample) float64 { return s.P50 }},
	{"Latency, 99th percentile", "p99 µs", func(s sample) float64 { return s.P99 }},
	{"Latency, 99.9th percentile", "p99.9 µs", func(s sample) float64 { return s.P999 }},
}

func newResult(ctx context.Context, o *options) *result {
	return &result{
		Machine: describeMachine(ctx, o), Began: time.Now().UTC().Truncate(time.Second), Main: mainColumn(o), Builds: o.builds,
		Columns: columns(o), Reps: o.reps, Seconds: o.time.Seconds(), SizeMiB: o.sizeMiB,
	}
}

func newRow(c cell, runs map[string][]sample) row {
	r := row{Cell: c, Name: c.name(), Median: map[string]sample{}, Runs: runs}
	for name, samples := range runs {
		r.Targets = append(r.Targets, name)
		r.Median[name] = medians(samples)
	}
	slices.Sort(r.Targets)
	return r
}

func resultPath(o *options) string { return filepath.Join(o.out, "results.json") }

// saveResult writes what there is so far, so that nothing measured is lost.
func saveResult(o *options, res *result) error {
	b, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(resultPath(o), append(b, '\n'))
}

func loadResult(path string) (*result, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, hint("bench leaves results.json in the directory of -out", "%w", err)
	}
	res := &result{}
	if err := json.Unmarshal(b, res); err != nil {
		return nil, hint("-from wants a results.json that bench wrote", "%s: %w", path, err)
	}
	return res, nil
}

func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
