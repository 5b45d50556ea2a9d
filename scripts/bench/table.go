package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// onTerminal: progress is one line that is overwritten; elsewhere there is none.
var onTerminal = term.IsTerminal(int(os.Stderr.Fd()))

// progress says what goes on, for as long as it does.
func progress(format string, args ...any) {
	if onTerminal {
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s", fmt.Sprintf(format, args...))
	}
}

func clearProgress() {
	if onTerminal {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}

// table shows the rows while they are measured.
type table struct {
	columns []string
	main    string
	detail  bool
	width   int
}

const firstColumn = 26

func newTable(o *options, s *stage) *table {
	t := &table{main: mainColumn(o), detail: o.detail, width: 17}
	for _, c := range columns(o) {
		if s.find(c) != nil {
			t.columns = append(t.columns, c)
			t.width = max(t.width, len(c)+2)
		}
	}
	return t
}

func (t *table) heading() {
	clearProgress()
	fmt.Printf("\nOperations a second; × says how many times as fast %s is.\n%-*s", t.main, firstColumn, "")
	for _, c := range t.columns {
		fmt.Printf("%*s", t.width, c)
	}
	fmt.Println()
}

func (t *table) row(r row) {
	clearProgress()
	fmt.Printf("%-*s", firstColumn, r.Name)
	main := r.Median[t.main].Ops
	for _, c := range t.columns {
		s := r.Median[c]
		fmt.Printf("%*s", t.width, withRatio(number(s.Ops), main, s.Ops, c == t.main))
	}
	fmt.Println(noisy(r))
	if !t.detail {
		return
	}
	for _, figure := range figures[1:] {
		fmt.Printf("%-*s", firstColumn, "  "+figure.unit)
		for _, c := range t.columns {
			fmt.Printf("%*s", t.width, number(figure.of(r.Median[c])))
		}
		fmt.Println()
	}
}

// withRatio adds to a figure how many times it the main target makes.
func withRatio(text string, main, other float64, isMain bool) string {
	switch {
	case other == 0:
		return "–"
	case isMain || main == 0:
		return text
	}
	return text + " " + times(main/other)
}

func times(r float64) string {
	if r >= 20 {
		return fmt.Sprintf("%5.1f×", r)
	}
	return fmt.Sprintf("%5.2f×", r)
}

// number in three digits or more: 12.3, 4.56, 98765.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// noisy names the targets whose runs were far apart.
func noisy(r row) string {
	const far = 0.3
	var names []string
	for _, name := range r.Targets {
		if s := spread(r.Runs[name]); s > far {
			names = append(names, fmt.Sprintf("%s ±%.0f %%", name, s*50))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "   apart: " + strings.Join(names, ", ")
}
