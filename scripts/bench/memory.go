package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// memory of a server's process, in MiB.
type memory struct {
	Rss  float64 `json:"rss"`
	Pss  float64 `json:"pss"` // 0 where only root may know it
	Anon float64 `json:"anon"`
}

// memoryRow is one state in which memory is looked at.
type memoryRow struct {
	Name   string            `json:"name"`
	Memory map[string]memory `json:"memory"` // by target; the most seen
}

// loads are what 64 connections do at once.
var loads = []cell{
	{RW: "randread", BS: kib4, QD: 32, Jobs: 64},
	{RW: "randwrite", BS: kib4, QD: 32, Jobs: 64},
	{RW: "read", BS: kib128, QD: 16, Jobs: 64},
	{RW: "write", BS: kib128, QD: 16, Jobs: 64},
}

// measureMemory looks at servers that did nothing before: idle with many
// disks (sealdisk only), then under the load of 64 connections.
func measureMemory(ctx context.Context, o *options, res *result) error {
	idle := memoryRow{fmt.Sprintf("%d disks attached, idle", o.idleDisks), map[string]memory{}}
	for _, b := range o.builds {
		m, err := idleMemory(ctx, o, b)
		if err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
		idle.Memory[columnName(b.Name, o.variants[0])] = m
	}
	res.Memory = append(res.Memory, idle)

	few := *o
	few.variants, few.sizeMiB = []string{o.variants[0]}, min(o.sizeMiB, 256)
	err := withStage(ctx, &few, o.dir, func(s *stage) error {
		for _, c := range loads {
			r := memoryRow{c.explain(), map[string]memory{}}
			for _, t := range s.targets {
				progress("memory: %s, %s", r.Name, t.name)
				m, err := memoryUnder(ctx, s, t, c, o.time)
				if err != nil {
					return fmt.Errorf("%s: %w", t.name, err)
				}
				r.Memory[t.name] = m
			}
			res.Memory = append(res.Memory, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	clearProgress()
	fmt.Print("\n" + memoryTable(res))
	return saveResult(o, res)
}

// idleMemory is the engine's memory with many small disks attached.
func idleMemory(ctx context.Context, o *options, b build) (m memory, err error) {
	const diskSize = 16 << 20
	s, err := newStage(o.dir, diskSize)
	if err != nil {
		return m, err
	}
	defer s.close()
	d, err := s.startDaemon(ctx, b)
	if err != nil {
		return m, err
	}
	for i := range o.idleDisks {
		progress("memory: %s, disk %d of %d", b.Name, i+1, o.idleDisks)
		if _, err := d.disk(ctx, fmt.Sprintf("idle-%d", i), diskSize, variantFlags[o.variants[0]]...); err != nil {
			return m, err
		}
	}
	return readMemory(d.groupChild("engine"))
}

// memoryUnder is the most that a server takes while a cell runs.
func memoryUnder(ctx context.Context, s *stage, t *target, c cell, d time.Duration) (most memory, err error) {
	pid, err := t.pid()
	if err != nil {
		return most, err
	}
	run, err := startFio(ctx, s.dir, work{cell: c, uri: t.uri, size: s.size, time: d})
	if err != nil {
		return most, err
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := run.wait()
		done <- err
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return most, err
		case <-tick.C:
			m, err := readMemory(pid)
			if err != nil {
				continue // fio will say that the server is gone
			}
			most = memory{max(most.Rss, m.Rss), max(most.Pss, m.Pss), max(most.Anon, m.Anon)}
		}
	}
}

// readMemory asks the kernel for a process's memory. The engine lets nobody
// but root look at its pages: others get what /proc/PID/status tells all.
func readMemory(pid int) (memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if errors.Is(err, os.ErrPermission) {
		b, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	}
	if err != nil {
		return memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	return parseMemory(string(b))
}

func parseMemory(text string) (m memory, err error) {
	into := map[string]*float64{"Rss": &m.Rss, "Pss": &m.Pss, "Anonymous": &m.Anon, "VmRSS": &m.Rss, "RssAnon": &m.Anon}
	found := false
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), ":")
		words := strings.Fields(value)
		if into[name] == nil || len(words) != 2 || words[1] != "kB" {
			continue
		}
		kib, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			return m, fmt.Errorf("memory %s: %w", name, err)
		}
		*into[name] = float64(kib) / 1024
		found = found || into[name] == &m.Rss
	}
	if !found {
		return m, errors.New("the kernel's account of memory has no Rss")
	}
	return m, nil
}

func memoryTable(res *result) string {
	if len(res.Memory) == 0 {
		return ""
	}
	rows := [][]string{{"resident memory, MiB (Rss / Pss)"}}
	for _, c := range res.Columns {
		if _, ok := res.Memory[len(res.Memory)-1].Memory[c]; ok {
			rows[0] = append(rows[0], c)
		}
	}
	for _, r := range res.Memory {
		line := []string{r.Name}
		for _, c := range rows[0][1:] {
			m, ok := r.Memory[c]
			switch {
			case !ok:
				line = append(line, "–")
			case m.Pss == 0:
				line = append(line, number(m.Rss))
			default:
				line = append(line, number(m.Rss)+" / "+number(m.Pss))
			}
		}
		rows = append(rows, line)
	}
	return textTable(rows)
}
