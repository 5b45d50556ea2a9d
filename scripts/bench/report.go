package main

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// writeReport writes results.json, results.md and the picture, and says where.
func writeReport(o *options, res *result) error {
	clearProgress()
	if o.from == "" {
		if err := saveResult(o, res); err != nil {
			return err
		}
	}
	md := filepath.Join(o.out, "results.md")
	if err := writeFile(md, []byte(markdown(res))); err != nil {
		return err
	}
	said := md
	if ch := chartOf(res); len(ch.rows) > 0 && len(ch.columns) > 0 {
		pictures := []string{filepath.Join(o.out, "benchmarks.svg")}
		if o.svg != "" {
			pictures = append(pictures, o.svg)
		}
		for _, path := range pictures {
			if err := writeFile(path, ch.svg()); err != nil {
				return err
			}
		}
		said += ", the picture in " + strings.Join(pictures, " and ")
	}
	if t := summary(res); t != "" {
		fmt.Print("\n" + t)
	}
	fmt.Printf("\nThe report is in %s, every run in %s.\n", said, cmp.Or(o.from, resultPath(o)))
	return nil
}

// markdown is the report.
func markdown(res *result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s, %d turns of %g s, medians; %d MiB of data in each disk.\n\n%s",
		res.Began.Format("2006-01-02"), res.Reps, res.Seconds, res.SizeMiB, res.Machine)
	section := func(title, words string) {
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		if words != "" {
			fmt.Fprintf(&b, "%s\n\n", words)
		}
	}
	if t := summary(res); t != "" {
		section("Summary", "")
		b.WriteString(t)
	}
	if len(res.Rows) > 0 {
		for i, figure := range figures {
			words := ""
			if i == 0 {
				words = fmt.Sprintf("× says how many times as many %s makes.", res.Main)
			}
			section(figure.title+" ("+figure.unit+")", words)
			b.WriteString(textTable(figureTable(res, i)))
		}
		if res.Reps > 1 {
			section("How far apart the turns were", "The most operations a second less the fewest, in percent of the median.")
			b.WriteString(textTable(spreadTable(res)))
		}
	}
	for _, t := range []struct{ title, text string }{
		{"Fairness", fairnessTable(res)},
		{"Memory", memoryTable(res)},
	} {
		if t.text != "" {
			section(t.title, "")
			b.WriteString(t.text)
		}
	}
	if res.Delay != "" {
		section("Storage with 1 ms for each operation", "")
		fmt.Fprintf(&b, "```\n%s\n```\n", res.Delay)
	}
	return b.String()
}

// figureTable has a figure of all rows; the first figure comes with ratios.
func figureTable(res *result, i int) [][]string {
	rows := [][]string{append([]string{"row"}, res.Columns...)}
	for _, r := range res.Rows {
		line := []string{r.Name}
		for _, c := range res.Columns {
			v := figures[i].of(r.Median[c])
			switch {
			case v == 0:
				line = append(line, "–")
			case i == 0:
				line = append(line, withRatio(number(v), figures[i].of(r.Median[res.Main]), v, c == res.Main))
			default:
				line = append(line, number(v))
			}
		}
		rows = append(rows, line)
	}
	return rows
}

func spreadTable(res *result) [][]string {
	rows := [][]string{append([]string{"row"}, res.Columns...)}
	for _, r := range res.Rows {
		line := []string{r.Name}
		for _, c := range res.Columns {
			line = append(line, fmt.Sprintf("%.0f", spread(r.Runs[c])*100))
		}
		rows = append(rows, line)
	}
	return rows
}

// summary says for each other target how the main one does in the core rows:
// at worst, on the geometric mean, and at best.
func summary(res *result) string {
	core := selectCells([]string{"core"})
	rows := [][]string{{res.Main + " / other, core rows", "worst", "in", "mean", "best", "in"}}
	for _, other := range res.Columns {
		if other == res.Main {
			continue
		}
		worst, best, logs, n := math.Inf(1), 0.0, 0.0, 0
		var worstRow, bestRow string
		for _, r := range res.Rows {
			x := ratio(r.Median[res.Main].Ops, r.Median[other].Ops)
			if x == 0 || !slices.Contains(core, r.Cell) {
				continue
			}
			if x < worst {
				worst, worstRow = x, r.Name
			}
			if x > best {
				best, bestRow = x, r.Name
			}
			logs += math.Log(x)
			n++
		}
		if n > 0 {
			rows = append(rows, []string{other, number(worst), worstRow, number(math.Exp(logs / float64(n))), number(best), bestRow})
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return textTable(rows)
}

// textTable is a Markdown table that is also read as it stands.
func textTable(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, text := range r {
			width[i] = max(width[i], utf8.RuneCountInString(text), 3)
		}
	}
	var b strings.Builder
	for n, r := range rows {
		for i, text := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(text))
			if i == 0 {
				b.WriteString("| " + text + pad + " |")
			} else {
				b.WriteString(" " + pad + text + " |")
			}
		}
		b.WriteByte('\n')
		if n == 0 {
			for i, w := range width {
				if i == 0 {
					b.WriteString("|" + strings.Repeat("-", w+2) + "|")
				} else {
					b.WriteString(strings.Repeat("-", w+1) + ":|")
				}
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}
