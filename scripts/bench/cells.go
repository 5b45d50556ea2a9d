package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// cell is one row: a kind of work that every target is given.
type cell struct {
	RW   string // fio's rw; randrw reads 70 % and writes 30 %
	BS   int    // bytes of an operation
	QD   int    // operations under way on a connection
	Jobs int    // connections
	Cold bool   // on disk, with nothing of the file in the page cache
}

// name as in "randread 4k qd32", "randrw 4k qd32 x4", "cold read 1m qd8".
func (c cell) name() string {
	bs := fmt.Sprintf("%dk", c.BS>>10)
	if c.BS >= 1<<20 {
		bs = fmt.Sprintf("%dm", c.BS>>20)
	}
	s := fmt.Sprintf("%s %s qd%d", c.RW, bs, c.QD)
	if c.Jobs > 1 {
		s += fmt.Sprintf(" x%d", c.Jobs)
	}
	if c.Cold {
		s = "cold " + s
	}
	return s
}

const (
	kib4   = 4 << 10
	kib128 = 128 << 10
	mib1   = 1 << 20
)

// rowSets in the order in which they are measured. The last three are no
// cells: fairness.go, memory.go and delay.go.
var rowSets = []string{"core", "mix", "conns", "cold", "fairness", "memory", "delay"}

// setCells are the cells of a row set.
func setCells(set string) (cells []cell) {
	switch set {
	case "core":
		return []cell{
			{RW: "randread", BS: kib4, QD: 1, Jobs: 1},
			{RW: "randwrite", BS: kib4, QD: 1, Jobs: 1},
			{RW: "randread", BS: kib4, QD: 32, Jobs: 1},
			{RW: "randwrite", BS: kib4, QD: 32, Jobs: 1},
			{RW: "read", BS: kib128, QD: 16, Jobs: 1},
			{RW: "write", BS: kib128, QD: 16, Jobs: 1},
			{RW: "read", BS: mib1, QD: 8, Jobs: 1},
			{RW: "write", BS: mib1, QD: 8, Jobs: 1},
		}
	case "mix":
		return []cell{
			{RW: "randrw", BS: kib4, QD: 32, Jobs: 1},
			{RW: "randrw", BS: kib4, QD: 32, Jobs: 4},
		}
	case "conns":
		for _, c := range setCells("core") {
			c.Jobs = 4
			cells = append(cells, c)
		}
		return cells
	case "cold":
		return []cell{
			{RW: "randread", BS: kib4, QD: 1, Jobs: 1, Cold: true},
			{RW: "randread", BS: kib4, QD: 32, Jobs: 1, Cold: true},
			{RW: "read", BS: mib1, QD: 8, Jobs: 1, Cold: true},
		}
	}
	return nil
}

// selectCells gives the cells of the sets named, and those whose names match a
// pattern, each once.
func selectCells(rows []string) (chosen []cell) {
	for _, set := range rowSets {
		for _, c := range setCells(set) {
			wanted := slices.ContainsFunc(rows, func(r string) bool {
				match, _ := path.Match(r, c.name())
				return match || r == set || r == "all"
			})
			if wanted && !slices.Contains(chosen, c) {
				chosen = append(chosen, c)
			}
		}
	}
	return chosen
}

// explainCell says in words what a row is, for the report and the picture.
func (c cell) explain() string {
	size := "4 KiB"
	switch c.BS {
	case kib128:
		size = "128 KiB"
	case mib1:
		size = "1 MiB"
	}
	kind := map[string]string{
		"randread": "random read", "randwrite": "random write", "randrw": "random, 70 % read",
		"read": "sequential read", "write": "sequential write",
	}[c.RW]
	words := []string{size + " " + kind, fmt.Sprintf("QD%d", c.QD)}
	if c.Jobs > 1 {
		words = append(words, fmt.Sprintf("%d connections", c.Jobs))
	}
	if c.Cold {
		words = append(words, "cold")
	}
	return strings.Join(words, ", ")
}
