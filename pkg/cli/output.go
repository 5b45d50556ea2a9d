package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"sealdisk/pkg/api"
)

// Emit writes data to stdout: v as JSON, or a table of header and rows. A nil
// header makes a plain list of rows.
func (a *App) Emit(v any, header []string, rows [][]string) error {
	if a.Output == "json" {
		e := json.NewEncoder(a.Out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	if header != nil {
		fmt.Fprintln(w, strings.Join(header, "\t"))
	}
	for _, r := range rows {
		for i := range r {
			if r[i] == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// Tell writes words for people to stderr.
func (a *App) Tell(format string, v ...any) {
	fmt.Fprintf(a.Err, format+"\n", v...)
}

// Confirm asks question on a terminal. Without a terminal it needs --yes.
func (a *App) Confirm(question string) error {
	if a.Yes {
		return nil
	}
	f, ok := a.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usagef("repeat the command with --yes", "%s: not asked, standard input is not a terminal", question)
	}
	fmt.Fprintf(a.Err, "%s? [y/N] ", question)
	return readYes(f)
}

func readYes(r io.Reader) error {
	line, _ := bufio.NewReader(r).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return &api.Error{Class: api.ClassUsage, Message: "not confirmed, nothing was changed"}
}

// ParseSize reads a size in bytes: a number with the unit B, K, M, G, T or P, each 1024
// times the one before; "10G", "10GiB" and "10gib" are all 10 GiB. Without a unit
// the number is in GiB.
func ParseSize(s string) (int64, error) {
	bad := func() (int64, error) {
		return 0, usagef("write a size like 10G (GiB), 512M or 1T", "bad size %q", s)
	}
	t := strings.ToUpper(strings.TrimSpace(s))
	t = strings.TrimSuffix(t, "IB")
	shift := 30
	if t != "" {
		if i := strings.IndexByte("BKMGTP", t[len(t)-1]); i >= 0 {
			shift, t = 10*i, t[:len(t)-1]
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return bad()
	}
	return n << shift, nil
}

// FormatSize writes n bytes in the largest unit that gives a whole number.
func FormatSize(n int64) string {
	i := 0
	for ; n != 0 && n%1024 == 0 && i < len(units)-1; i++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + " " + units[i]
}

var units = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}

// formatTime writes a time for people, in UTC.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
