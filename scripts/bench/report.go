package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// writeReport writes results.json and results.md, and says where.
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
	fmt.Printf("\nThe report is in %s, all figures in %s.\n", md, resultPath(o))
	return nil
}

// markdown is the report.
func markdown(res *result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s, %d turns of %g s, medians; %d MiB of data in each disk.\n\n%s",
		res.Began.Format("2006-01-02"), res.Reps, res.Seconds, res.SizeMiB, res.Machine)
	for i, figure := range figures {
		fmt.Fprintf(&b, "\n## %s (%s)\n\n", figure.title, figure.unit)
		if i == 0 {
			fmt.Fprintf(&b, "× is how many times as many %s makes.\n\n", res.Main)
		}
		fmt.Fprintf(&b, "| row |%s\n|---|%s\n", cells(res.Columns, func(c string) string { return c }), strings.Repeat("--:|", len(res.Columns)))
		for _, r := range res.Rows {
			fmt.Fprintf(&b, "| %s |%s\n", r.Name, cells(res.Columns, func(c string) string {
				v := figure.of(r.Median[c])
				if i > 0 {
					if v == 0 {
						return "–"
					}
					return number(v)
				}
				return withRatio(number(v), figure.of(r.Median[res.Main]), v, c == res.Main)
			}))
		}
	}
	return b.String()
}

func cells(columns []string, text func(string) string) string {
	var b strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", strings.Join(strings.Fields(text(c)), " "))
	}
	return b.String()
}
