package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/bench"
	"sealdisk/pkg/latency"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbd/nbdclient"
)

func TestBenchNeedsAnAttachedDisk(t *testing.T) {
	s := newStation(t)
	s.must("disk", "create", "data", "--size", "1M")
	wantIn(t, s.refused(4, "bench", "data"), "disk data is not attached (it is available)", "hint: sealdisk disk attach data\n")
	wantIn(t, s.refused(3, "bench", "nodisk"), "does not exist")
	s.refused(2, "bench")
	s.must("disk", "attach", "data")
	wantIn(t, s.refused(4, "bench", "data"), "detached meanwhile", "hint: sealdisk disk attach data\n") // the station has no sockets
	wantIn(t, s.refused(2, "bench", "data", "--write"), "write them back", "hint: repeat the command with --yes")
	wantIn(t, s.refused(2, "bench", "data", "--quick", "--time", "1s"), "none of the others")
	for _, bad := range []string{"--time=0s", "--time=-1s", "--time=2h", "--connections=0", "--connections=65", "--size=ten", "--size=0"} {
		s.refused(2, "bench", "data", bad)
	}
	s.must("disk", "detach", "data")
	s.must("disk", "attach", "data", "--read-only")
	wantIn(t, s.refused(4, "bench", "data", "--write", "--yes"), "read-only", "hint: leave out --write")
	wantIn(t, s.must("__complete", "bench", ""), "data\t1 MiB")
}

func TestBenchOptions(t *testing.T) {
	const size = 10 << 30
	base := benchOptions{time: benchTime, connections: 1}
	with := func(f func(*benchOptions)) benchOptions { o := base; f(&o); return o }
	for name, c := range map[string]struct {
		o    benchOptions
		size int64
		want bench.Config
	}{
		"default":              {base, size, bench.Config{Time: benchTime, Connections: 1, Range: size}},
		"quick":                {with(func(o *benchOptions) { o.quick = true }), size, bench.Config{Time: quickTime, Connections: 1, Range: size}},
		"size":                 {with(func(o *benchOptions) { o.size = "1G" }), size, bench.Config{Time: benchTime, Connections: 1, Range: 1 << 30}},
		"size above":           {with(func(o *benchOptions) { o.size = "1T" }), size, bench.Config{Time: benchTime, Connections: 1, Range: size}},
		"write":                {with(func(o *benchOptions) { o.write = true }), size, bench.Config{Time: benchTime, Connections: 1, Range: writeRange, Write: true}},
		"write, small":         {with(func(o *benchOptions) { o.write = true }), 4096, bench.Config{Time: benchTime, Connections: 1, Range: 4096, Write: true}},
		"write, size":          {with(func(o *benchOptions) { o.write = true; o.size = "1G" }), size, bench.Config{Time: benchTime, Connections: 1, Range: 1 << 30, Write: true}},
		"more and for longer ": {with(func(o *benchOptions) { o.connections = 4; o.time = time.Minute }), size, bench.Config{Time: time.Minute, Connections: 4, Range: size}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.o.config(c.size)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestBenchErrors(t *testing.T) {
	v := api.Volume{Name: "data"}
	request := func(e nbd.Errno) error { return &bench.RequestError{Command: nbd.CmdRead, Errno: e} }
	refusal := func(r nbd.OptionReply) error { return &nbdclient.OptionError{Option: nbd.OptGo, Reply: r} }
	for _, c := range []struct {
		err         error
		class       api.Class
		words, hint string
	}{
		{&api.Error{Class: api.ClassConflict, Message: "m", Hint: "h"}, api.ClassConflict, "m", "h"},
		{context.Canceled, api.ClassInternal, "interrupted", ""},
		{fmt.Errorf("dial: %w", syscall.EACCES), api.ClassDenied, "may not connect", "who attached it"},
		{refusal(nbd.RepErrUnknown), api.ClassDenied, "may not connect", "root"},
		{refusal(nbd.RepErrShutdown), api.ClassConflict, "detached", "disk attach data"},
		{refusal(nbd.RepErrTLSReqd), api.ClassInternal, "ERR_TLS_REQD", "status"},
		{request(nbd.ESHUTDOWN), api.ClassConflict, "detached", "disk attach data"},
		{request(nbd.EIO), api.ClassInternal, "READ: NBD error EIO", "log"},
		{request(nbd.ENOSPC), api.ClassNoSpace, "ENOSPC", "--size"},
		{request(nbd.EPERM), api.ClassInternal, "EPERM", "status"},
		{bench.ErrReadOnly, api.ClassConflict, "read-only", "--write"},
		{fmt.Errorf("dial: %w", fs.ErrNotExist), api.ClassConflict, "detached", "disk attach"},
		{fmt.Errorf("dial: %w", syscall.ECONNREFUSED), api.ClassDaemonUnreachable, "does not serve it", "status"},
		{nbdclient.ErrClosed, api.ClassDaemonUnreachable, "closed", "status"},
		{context.DeadlineExceeded, api.ClassDaemonUnreachable, "deadline", "status"},
		{nbdclient.ErrProtocol, api.ClassInternal, "protocol", "status"},
	} {
		err := benchError(v, c.err)
		var e *api.Error
		if !errors.As(err, &e) || e.Class != c.class || !strings.Contains(e.Message, c.words) || !strings.Contains(e.Hint, c.hint) || !errors.Is(err, c.err) && c.err != bench.ErrReadOnly {
			t.Errorf("%v: %v, hint %q", c.err, err, e.Hint)
		}
	}
	if benchError(v, nil) != nil {
		t.Error("an error of nothing")
	}
}

// someReport has rows of 1000 operations in half a second, of 1 to 1000 µs.
func someReport() *bench.Report {
	rep := &bench.Report{Size: 1 << 30, Range: 256 << 20, Looked: 256 << 20, Holes: 64 << 20}
	for _, w := range bench.Works(false) {
		h := new(latency.Histogram)
		for i := range 1000 {
			h.Record(time.Duration(i+1) * time.Microsecond)
		}
		rep.Results = append(rep.Results, bench.Result{Work: w, Ops: 1000, Time: time.Second / 2, Latency: h})
	}
	return rep
}

func TestBenchResult(t *testing.T) {
	v := api.Volume{Name: "data", ID: "id", Encrypted: true}
	cfg := bench.Config{Connections: 4, Time: time.Second / 2}
	show := func(output string, rep *bench.Report) (string, string) {
		var out, words bytes.Buffer
		a := &App{Out: &out, Err: &words, Output: output}
		if err := a.showBench(v, cfg, rep); err != nil {
			t.Fatal(err)
		}
		return out.String(), words.String()
	}
	out, words := show("table", someReport())
	wantIn(t, out, "WORK", "P99.9 µs", "4 KiB random read        1   2,000  8.2    ", "128 KiB sequential read  16  2,000  262", "1 MiB sequential read    8   2,000  2,097")
	wantIn(t, words, "first 256 MiB were used, of 1 GiB", "4 connections", "25 % of the range are holes")

	rep := someReport()
	rep.Results, rep.Interrupted, rep.Filled, rep.Kept = rep.Results[:1], true, 64<<20, 1<<20
	out, words = show("json", rep)
	wantIn(t, words, "Interrupted", "1 MiB of them could not be given back")
	var got benchResult
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	r := got.Rows[0]
	if len(got.Rows) != 1 || r.Work != "4 KiB random read" || r.PerSec != 2000 || r.Bytes != 2000*4096 || r.Depth != 1 || !r.Random || r.Write ||
		r.Latency.P50 < 495 || r.Latency.P50 > 505 || r.Latency.P99 < 985 || r.Latency.P99 > 995 || r.Latency.P999 < 995 || r.Latency.Max != 1000 ||
		*got.Holes != 0.25 || !got.Interrupted || got.Kept != 1<<20 || got.Disk != "data" || got.Connections != 4 {
		t.Errorf("%+v", got)
	}

	rep.Looked, rep.Holes, rep.Kept, rep.Filled = 0, 0, 0, 0
	if out, words = show("json", rep); strings.Contains(out, `"holes"`) || strings.Contains(words, "hole") {
		t.Errorf("holes of a server that does not tell:\n%s%s", out, words)
	}
	rep.Range, rep.Size, rep.Interrupted, rep.Results = 4096, 4096, false, nil
	if out, words = show("json", rep); !strings.Contains(out, `"rows": []`) || !strings.Contains(words, "larger than 4 KiB were left out") {
		t.Errorf("no rows:\n%s%s", out, words)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for v, want := range map[float64]string{0: "0.0", 8.25: "8.2", 99.9: "99.9", 100: "100", 999.6: "1,000", 1234567: "1,234,567", 123456: "123,456"} {
		if got := thousands(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{1: "100 %", 0.9999: "over 99 %", 0.5: "50 %", 0.001: "under 1 %"} {
		if got := percent(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// TestStatusLine: a shorter text leaves nothing of the longer, a long one stays within the terminal, and
// in the end nothing is left.
func TestStatusLine(t *testing.T) {
	var out bytes.Buffer
	l := &statusLine{w: &out, width: func() int { return 11 }}
	for _, text := range []string{"", "twelve letters", "five…", ""} {
		l.show(text)
	}
	if got, want := out.String(), "\rtwelve let\rfive…     \r     \r"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p := bench.Progress{Row: 1, Rows: 8, Result: bench.Result{Work: bench.Works(false)[1], Ops: 1000, Time: time.Second / 2}}
	if got, want := progressText(p, time.Second), "[2/8] 4 KiB random read, QD 32   50 %  2,000 ops/s  8.2 MB/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := progressText(bench.Progress{Step: "filling holes"}, time.Second); got != "filling holes …" {
		t.Errorf("%q", got)
	}
	user, program := pty(t)
	show, done := (&App{Err: program}).benchProgress(time.Second)
	show(p)
	done()
	seen := make([]byte, 200)
	n, err := user.Read(seen)
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, string(seen[:n]), "\r[2/8] 4 KiB random read")
	// Not on a terminal nothing is shown.
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, w := range []io.Writer{&out, file} {
		show, done = (&App{Err: w}).benchProgress(time.Second)
		if done(); show != nil {
			t.Error("progress without a terminal")
		}
	}
}
