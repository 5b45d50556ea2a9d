package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sample is what one run of fio, or the medians of several, say of a target.
type sample struct {
	Ops  float64 `json:"ops"`              // operations a second
	MBps float64 `json:"mbps"`             // 10⁶ bytes a second
	CPU  float64 `json:"cpu_us,omitempty"` // server's CPU time in µs an operation
	P50  float64 `json:"p50_us"`           // completion latency, µs
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
}

// work is one fio process to be run.
type work struct {
	cell
	uri  string
	size int64         // bytes of the disk
	time time.Duration // 0: once over the disk
}

// fioArgs are the arguments for w, with the result written to out.
func fioArgs(w work, out string) []string {
	args := []string{
		"--name=bench", "--ioengine=nbd", "--uri=" + w.uri,
		"--output-format=json", "--output=" + out, "--eta=never",
		"--rw=" + w.RW, "--bs=" + strconv.Itoa(w.BS), "--iodepth=" + strconv.Itoa(w.QD),
		"--randrepeat=1", "--group_reporting",
		// Reads and writes of a mix in one distribution.
		"--unified_rw_reporting=mixed", "--percentile_list=50:99:99.9",
	}
	size := w.size
	if w.Jobs > 1 {
		args = append(args, "--numjobs="+strconv.Itoa(w.Jobs))
		if !strings.HasPrefix(w.RW, "rand") {
			// Sequential connections share the disk out among themselves.
			size = size / int64(w.Jobs) / mib1 * mib1
			args = append(args, fmt.Sprintf("--offset_increment=%d", size))
		}
	}
	args = append(args, fmt.Sprintf("--size=%d", size))
	if w.RW == "randrw" {
		args = append(args, "--rwmixread=70")
	}
	if w.time > 0 {
		args = append(args, fmt.Sprintf("--runtime=%dms", w.time.Milliseconds()))
		// Cold, no block is read twice: the second time it would be warm.
		if !w.Cold {
			args = append(args, "--time_based", "--norandommap")
		}
	}
	return args
}

// fioRun is a started fio.
type fioRun struct {
	w    work
	cmd  *exec.Cmd
	out  string
	said bytes.Buffer
}

// startFio is called on the main goroutine only: see init. The run ends with
// ctx, its connections too.
func startFio(ctx context.Context, dir string, w work) (*fioRun, error) {
	f, err := os.CreateTemp(dir, "fio.*.json")
	if err != nil {
		return nil, err
	}
	f.Close()
	r := &fioRun{w: w, out: f.Name()}
	r.cmd = exec.CommandContext(ctx, "fio", fioArgs(w, r.out)...)
	r.cmd.Dir = dir
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	r.cmd.SysProcAttr = ownGroup()
	// fio's jobs are processes of its group.
	r.cmd.Cancel = func() error { return syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) }
	r.cmd.WaitDelay = 5 * time.Second
	if err := r.cmd.Start(); err != nil {
		os.Remove(r.out)
		return nil, hint("scripts/deps.sh bench says what is missing", "starting fio: %w", err)
	}
	return r, nil
}

// wait returns what fio measured, and the number of operations.
func (r *fioRun) wait() (s sample, ops int64, err error) {
	defer os.Remove(r.out)
	if err := r.cmd.Wait(); err != nil {
		return s, 0, fmt.Errorf("fio, %s on %s: %w\n    %s", r.w.name(), r.w.uri, err, strings.TrimSpace(r.said.String()))
	}
	b, err := os.ReadFile(r.out)
	if err == nil {
		s, ops, err = parseFio(b)
	}
	if err != nil {
		return s, 0, fmt.Errorf("fio, %s on %s: %w\n    %s", r.w.name(), r.w.uri, err, strings.TrimSpace(r.said.String()))
	}
	return s, ops, nil
}

// runFio runs one fio to its end.
func runFio(ctx context.Context, dir string, w work) (sample, int64, error) {
	r, err := startFio(ctx, dir, w)
	if err != nil {
		return sample{}, 0, err
	}
	return r.wait()
}

// parseFio reads fio's JSON of one group: rates, latencies, and the number of
// operations. Words that fio prints before the JSON are passed over.
func parseFio(b []byte) (s sample, ops int64, err error) {
	var out struct {
		Jobs []struct {
			Error int `json:"error"`
			Mixed *struct {
				IOPS  float64 `json:"iops"`
				BW    float64 `json:"bw_bytes"`
				Total int64   `json:"total_ios"`
				Clat  struct {
					Percentile map[string]float64 `json:"percentile"`
				} `json:"clat_ns"`
			} `json:"mixed"`
		} `json:"jobs"`
	}
	if i := bytes.IndexByte(b, '{'); i > 0 {
		b = b[i:]
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return s, 0, fmt.Errorf("reading fio's JSON: %w", err)
	}
	if len(out.Jobs) != 1 || out.Jobs[0].Mixed == nil {
		return s, 0, fmt.Errorf("fio's JSON has %d groups with results, want 1 with \"mixed\" (fio 3.29 or newer)", len(out.Jobs))
	}
	j := out.Jobs[0]
	m := j.Mixed
	switch {
	case j.Error != 0:
		return s, 0, fmt.Errorf("an operation failed: %w", syscall.Errno(j.Error))
	case m.Total == 0:
		return s, 0, fmt.Errorf("no operation was completed")
	}
	us := func(p string) float64 { return m.Clat.Percentile[p] / 1000 }
	return sample{Ops: m.IOPS, MBps: m.BW / 1e6, P50: us("50.000000"), P99: us("99.000000"), P999: us("99.900000")}, m.Total, nil
}
