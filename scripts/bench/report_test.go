package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// resultOfCore is a run in which sealdisk makes 3,000 operations in each core
// row and the n-th peer 1,000·n.
func resultOfCore() *result {
	res := &result{
		Main: "sealdisk", Columns: append([]string{"sealdisk"}, peerNames()...), Reps: 1, Seconds: 3, SizeMiB: 1024,
		Began: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), Machine: "- CPU: one\n",
	}
	for _, c := range setCells("core") {
		runs := map[string][]sample{"sealdisk": {{Ops: 3000, MBps: 12, CPU: 5, P50: 1, P99: 2, P999: 3}}}
		for i, p := range peerNames() {
			runs[p] = []sample{{Ops: 1000 * float64(i+1)}}
		}
		res.Rows = append(res.Rows, newRow(c, runs))
	}
	return res
}

func TestRatioTable(t *testing.T) {
	res := resultOfCore()
	table := figureTable(res, 0)
	if got := table[0]; !slices.Equal(got, append([]string{"row"}, res.Columns...)) {
		t.Errorf("heading %q", got)
	}
	// The main target by itself, then the peers with what sealdisk makes of theirs.
	want := []string{"randread 4k qd1", "3000", "1000  3.00×", "2000  1.50×", "3000  1.00×", "4000  0.75×", "5000  0.60×", "6000  0.50×"}
	if !slices.Equal(table[1], want) {
		t.Errorf("row %q, want %q", table[1], want)
	}
	if got := figureTable(res, 2)[1]; got[1] != "5.00" || got[2] != "–" {
		t.Errorf("CPU row %q, want 5.00 and then nothing known", got)
	}
}

func TestSummary(t *testing.T) {
	res := resultOfCore()
	slow := res.Rows[2].Median["nbdkit-file"]
	slow.Ops = 6000
	res.Rows[2].Median["nbdkit-file"] = slow
	got := summary(res)
	for _, want := range []string{"| nbdkit-file ", " 0.50 | randread 4k qd32 |", "| nbdkit-luks "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if got := summary(&result{Main: "sealdisk", Columns: res.Columns}); got != "" {
		t.Errorf("summary of nothing: %q", got)
	}
}

func TestMarkdown(t *testing.T) {
	res := resultOfCore()
	res.Fairness = []fairness{{Target: "sealdisk", Reader: sample{P99: 10}}, {Target: "nbdkit-file", Reader: sample{P99: 25}}}
	res.Memory = []memoryRow{{"idle", map[string]memory{"sealdisk": {Rss: 12}}}, {"busy", map[string]memory{"sealdisk": {Rss: 20, Pss: 15}, "nbdkit-file": {Rss: 4}}}}
	md := markdown(res)
	for _, want := range []string{"Measured on 2026-01-02", "- CPU: one", "| randread 4k qd1 ", "## Fairness", " 2.50 |", "## Memory", "20.0 / 15.0", "CPU µs/op"} {
		if !strings.Contains(md, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	// Every line of a table has as many columns as its heading.
	columns := 0
	for line := range strings.Lines(md) {
		n := strings.Count(line, "|")
		if n > 0 && columns > 0 && n != columns {
			t.Errorf("%d columns, the heading has %d: %s", n-1, columns-1, line)
		}
		columns = n
	}
}

// wellFormed parses XML and returns the number of elements by name.
func wellFormed(t *testing.T, b []byte) map[string]int {
	t.Helper()
	count := map[string]int{}
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return count
		}
		if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, b)
		}
		if e, ok := tok.(xml.StartElement); ok {
			count[e.Name.Local]++
		}
	}
}

func TestPicture(t *testing.T) {
	ch := chartOf(resultOfCore())
	if slices.Contains(ch.columns, "nbdkit-null") || len(ch.columns) != 5 || len(ch.rows) != 8 {
		t.Fatalf("%d rows, columns %q; want 8 rows and every peer that stores data", len(ch.rows), ch.columns)
	}
	svg := ch.svg()
	count := wellFormed(t, svg)
	if want := 1 + 5 + 5*8; count["rect"] != want {
		t.Errorf("%d rectangles, want %d: the page, the legend, a bar for each ratio", count["rect"], want)
	}
	for _, want := range []string{"prefers-color-scheme: dark", "4 KiB random read, QD1", ">3.00<", ">0.60<", "nbdkit file (plain text)"} {
		if !bytes.Contains(svg, []byte(want)) {
			t.Errorf("the picture lacks %q", want)
		}
	}
	odd := chart{title: `<"&>`, rows: []string{"a<b"}, columns: []string{"qemu-luks"}, ratio: [][]float64{{0}}}
	wellFormed(t, odd.svg())
}

func TestPictureScaleHoldsEveryBar(t *testing.T) {
	for _, r := range []float64{0.01, 0.3, 1, 1.5, 70, 5000} {
		s := chart{ratio: [][]float64{{r, 2}}}.scale()
		if x := s.x(r); x < labelWidth || x > pictureWidth-valueWidth {
			t.Errorf("the bar of %v ends at %v, outside of %d..%d", r, x, labelWidth, pictureWidth-valueWidth)
		}
	}
}

func TestResultComesBack(t *testing.T) {
	o := &options{out: filepath.Join(t.TempDir(), "new")}
	if err := saveResult(o, resultOfCore()); err != nil {
		t.Fatal(err)
	}
	back, err := loadResult(resultPath(o))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := markdown(back), markdown(resultOfCore()); got != want {
		t.Errorf("the report of a saved run differs:\n%s\nwant\n%s", got, want)
	}
	if !bytes.Equal(chartOf(back).svg(), chartOf(resultOfCore()).svg()) {
		t.Error("the picture of a saved run differs")
	}
	if err := os.WriteFile(resultPath(o), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadResult(resultPath(o)); err == nil {
		t.Error("half a result was read")
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0.456: "0.46", 9.994: "9.99", 12.34: "12.3", 123.6: "124", 204150.4: "204150"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
	if got := times(2.456) + times(47.12); got != " 2.46× 47.1×" {
		t.Errorf("times: %q", got)
	}
}
