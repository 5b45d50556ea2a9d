package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"sealdisk/pkg/api"
	"sealdisk/pkg/bench"
)

// benchResult is the JSON of a measurement. Sizes are bytes, times as the names say.
type benchResult struct {
	Disk        string     `json:"disk"`
	ID          string     `json:"id"`
	Encrypted   bool       `json:"encrypted"`
	Size        int64      `json:"size"`
	Range       int64      `json:"range"` // used, from the start
	Connections int        `json:"connections"`
	Seconds     float64    `json:"seconds_per_row"`
	Holes       *float64   `json:"holes,omitempty"` // the part of the range that was holes, 0 to 1
	Filled      int64      `json:"filled,omitempty"`
	Kept        int64      `json:"kept,omitempty"` // of the filled holes, not given back
	Interrupted bool       `json:"interrupted,omitempty"`
	Rows        []benchRow `json:"rows"`
}

type benchRow struct {
	Work    string       `json:"work"`
	Write   bool         `json:"write"`
	Random  bool         `json:"random"`
	Block   int          `json:"block"`
	Depth   int          `json:"depth"` // requests under way on each connection
	Ops     uint64       `json:"operations"`
	Seconds float64      `json:"seconds"`
	PerSec  float64      `json:"operations_per_second"`
	Bytes   float64      `json:"bytes_per_second"`
	Latency benchLatency `json:"latency_us"`
}

type benchLatency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// workName says what a row measures.
func workName(w bench.Work) string {
	name := FormatSize(int64(w.Block))
	if w.Random {
		name += " random"
	} else {
		name += " sequential"
	}
	if w.Write {
		return name + " write"
	}
	return name + " read"
}

// showBench writes the result to stdout and what is to be said about it to stderr.
func (a *App) showBench(v api.Volume, cfg bench.Config, rep *bench.Report) error {
	out := benchResult{Disk: v.Name, ID: v.ID, Encrypted: v.Encrypted, Size: rep.Size, Range: rep.Range, Connections: cfg.Connections,
		Seconds: cfg.Time.Seconds(), Filled: rep.Filled, Kept: rep.Kept, Interrupted: rep.Interrupted, Rows: []benchRow{}}
	if rep.Looked > 0 {
		part := float64(rep.Holes) / float64(rep.Looked)
		out.Holes = &part
	}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	var rows [][]string
	for _, r := range rep.Results {
		l := benchLatency{us(r.Latency.Quantile(0.5)), us(r.Latency.Quantile(0.99)), us(r.Latency.Quantile(0.999)), us(r.Latency.Max())}
		out.Rows = append(out.Rows, benchRow{workName(r.Work), r.Write, r.Random, r.Block, r.Depth, r.Ops, r.Time.Seconds(),
			r.PerSecond(), r.BytesPerSecond(), l})
		rows = append(rows, []string{workName(r.Work), strconv.Itoa(r.Depth), thousands(r.PerSecond()), thousands(r.BytesPerSecond() / 1e6),
			thousands(l.P50), thousands(l.P99), thousands(l.P999)})
	}
	if err := a.Emit(out, []string{"WORK", "QD", "OPS/S", "MB/S", "P50 µs", "P99 µs", "P99.9 µs"}, rows); err != nil {
		return err
	}
	a.benchNotes(out, len(bench.Works(cfg.Write)))
	return nil
}

// benchNotes says what the numbers stand for.
func (a *App) benchNotes(r benchResult, rows int) {
	if r.Range < r.Size {
		a.Tell("Of disk %s the first %s were used, of %s.", r.Disk, FormatSize(r.Range), FormatSize(r.Size))
	}
	if r.Connections > 1 {
		a.Tell("%d connections, each with QD requests under way.", r.Connections)
	}
	switch {
	case r.Holes == nil || *r.Holes == 0:
	case r.Filled > 0 && r.Kept == 0:
		a.Tell("Holes, %s of the range, were filled for the time of the measurement.", percent(*r.Holes))
	case r.Filled > 0:
		a.Tell("Holes were filled, and %s of them could not be given back: they take up storage now, and read as zeros as before.", FormatSize(r.Kept))
	default:
		a.Tell("Note: %s of the range are holes, with nothing to read or decrypt: data are slower.", percent(*r.Holes))
	}
	switch {
	case r.Interrupted:
		a.Tell("Interrupted: the last row was measured for a shorter time, later ones are missing.")
	case len(r.Rows) < rows && r.Range < 1<<20:
		a.Tell("Rows whose blocks are larger than %s were left out.", FormatSize(r.Range))
	}
}

// percent writes a part of 1; what is not all is not 100 %.
func percent(part float64) string {
	switch {
	case part > 0.99 && part < 1:
		return "over 99 %"
	case part < 0.01:
		return "under 1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*part)
}

// thousands writes a number with three digits at least, and in groups.
func thousands(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// benchProgress returns what shows on a terminal how far the measurement is, in one
// line, and what removes that line. Elsewhere both do nothing.
func (a *App) benchProgress(each time.Duration) (show func(bench.Progress), done func()) {
	f, ok := a.Err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	line := &statusLine{w: a.Err, width: func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 {
			return 80
		}
		return width
	}}
	return func(p bench.Progress) { line.show(progressText(p, each)) }, func() { line.show("") }
}

// progressText is one line about a row that is being measured.
func progressText(p bench.Progress, each time.Duration) string {
	if p.Step != "" {
		return p.Step + " …"
	}
	return fmt.Sprintf("[%d/%d] %s, QD %d  %3.0f %%  %s ops/s  %s MB/s", p.Row+1, p.Rows, workName(p.Work), p.Depth,
		100*min(p.Time.Seconds()/each.Seconds(), 1), thousands(p.PerSecond()), thousands(p.BytesPerSecond()/1e6))
}

// statusLine is a line of a terminal that is written again and again. It uses no
// escape sequences, so any terminal will do.
type statusLine struct {
	w     io.Writer
	width func() int
	shown int // characters that are there now
}

// show replaces the line by text; "" removes it.
func (l *statusLine) show(text string) {
	r := []rune(text)
	if most := l.width() - 1; len(r) > most { // the next line would be used
		r = r[:max(most, 0)]
	}
	pad := strings.Repeat(" ", max(l.shown-len(r), 0))
	end := ""
	if len(r) == 0 {
		end = "\r"
	}
	if l.shown > 0 || len(r) > 0 {
		_, _ = io.WriteString(l.w, "\r"+string(r)+pad+end)
	}
	l.shown = len(r)
}
