package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// measureAll starts everything, measures what was asked for, and writes the
// report; of an interrupted run, of what there is.
func measureAll(ctx context.Context, o *options) (err error) {
	if err := needTools(o.peers); err != nil {
		return err
	}
	warnOfLoad()
	dir, err := tempDir(os.TempDir())
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.builds, err = findBuilds(ctx, o.builds, dir); err != nil {
		return err
	}
	res := newResult(ctx, o)
	defer func() {
		if res.empty() {
			return
		}
		if werr := writeReport(o, res); werr != nil && err == nil {
			err = werr
		}
	}()

	var warm, cold []cell
	for _, c := range selectCells(o.rows) {
		if c.Cold {
			cold = append(cold, c)
		} else {
			warm = append(warm, c)
		}
	}
	if len(warm) > 0 || o.wants("fairness") {
		err := withStage(ctx, o, o.dir, func(s *stage) error {
			if err := measureCells(ctx, o, s, warm, res); err != nil || !o.wants("fairness") {
				return err
			}
			return measureFairness(ctx, o, s, res)
		})
		if err != nil {
			return err
		}
	}
	if len(cold) > 0 {
		if err := withStage(ctx, o, o.diskDir, func(s *stage) error { return measureCells(ctx, o, s, cold, res) }); err != nil {
			return err
		}
	}
	if o.wants("memory") {
		if err := measureMemory(ctx, o, res); err != nil {
			return err
		}
	}
	if o.wants("delay") {
		return measureDelay(ctx, o, res)
	}
	return nil
}

// findBuilds gives each build a binary that runs.
func findBuilds(ctx context.Context, builds []build, dir string) ([]build, error) {
	builds = slices.Clone(builds)
	for i, b := range builds {
		if b.Path == "" {
			progress("building sealdisk")
			path, err := buildSealdisk(ctx, dir)
			if err != nil {
				return nil, err
			}
			builds[i].Path = path
		} else if _, err := command(ctx, nil, b.Path, "version"); err != nil {
			return nil, hint("-target NAME=PATH wants a sealdisk binary, as bin/sealdisk after make build", "%w", err)
		}
	}
	return builds, nil
}

// withStage calls do with all targets running and filled, and stops them.
func withStage(ctx context.Context, o *options, parent string, do func(*stage) error) error {
	images := len(o.builds)*len(o.variants) + 3
	if err := needSpace(parent, int64(images)*(o.size()+64<<20)); err != nil {
		return err
	}
	s, err := newStage(parent, o.size())
	if err != nil {
		return err
	}
	defer s.close()
	for _, b := range o.builds {
		progress("starting %s", b.Name)
		if err := s.addBuild(ctx, b, o.variants); err != nil {
			return err
		}
	}
	for _, name := range o.peers {
		progress("starting %s", name)
		if err := s.addPeer(ctx, name); err != nil {
			return err
		}
	}
	// In the order of the columns.
	slices.SortStableFunc(s.targets, func(a, b *target) int {
		names := columns(o)
		return slices.Index(names, a.name) - slices.Index(names, b.name)
	})
	if err := s.fill(ctx); err != nil {
		return err
	}
	return do(s)
}

// measureCells measures each cell on each target, which take turns.
func measureCells(ctx context.Context, o *options, s *stage, cells []cell, res *result) error {
	if len(cells) == 0 {
		return nil
	}
	tab := newTable(o, s)
	tab.heading()
	for _, c := range cells {
		runs := map[string][]sample{}
		for rep := range o.reps {
			turn := slices.Clone(s.targets)
			if rep%2 == 1 {
				slices.Reverse(turn) // what drifts meanwhile meets both ends
			}
			for i, t := range turn {
				progress("%s: turn %d of %d, %s (%d of %d)", c.name(), rep+1, o.reps, t.name, i+1, len(turn))
				got, err := measure(ctx, s, t, c, o.time)
				if err != nil {
					return fmt.Errorf("%s: %w", t.name, err)
				}
				runs[t.name] = append(runs[t.name], got)
			}
		}
		r := newRow(c, runs)
		res.Rows = append(res.Rows, r)
		tab.row(r)
		if err := saveResult(o, res); err != nil {
			return err
		}
	}
	return nil
}

// measure runs a cell once on a target.
func measure(ctx context.Context, s *stage, t *target, c cell, d time.Duration) (sample, error) {
	if c.Cold && t.backing != "" {
		if err := dropCache(t.backing); err != nil {
			return sample{}, err
		}
	}
	pid, err := t.pid()
	if err != nil {
		return sample{}, err
	}
	before, err := cpuTime(pid)
	if err != nil {
		return sample{}, err
	}
	got, ops, err := runFio(ctx, s.dir, work{cell: c, uri: t.uri, size: s.size, time: d})
	if err != nil {
		if dead := t.server.alive(); dead != nil {
			return got, dead
		}
		return got, err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return got, err
	}
	got.CPU = float64((after - before).Nanoseconds()) / 1000 / float64(ops)
	return got, nil
}
