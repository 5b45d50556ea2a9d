package conformance

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealdisk/test/testbed"
)

// benchResult is what is asserted of the JSON of `sealdisk bench`.
type benchResult struct {
	Disk        string
	Range       int64
	Holes       *float64
	Filled      int64
	Kept        int64
	Interrupted bool
	Rows        []struct {
		Work       string
		Write      bool
		Operations int64
		PerSecond  float64            `json:"operations_per_second"`
		Bytes      float64            `json:"bytes_per_second"`
		Latency    map[string]float64 `json:"latency_us"`
	}
}

func parseBench(t *testing.T, out string) (r benchResult) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	for _, row := range r.Rows {
		l := row.Latency
		if row.Operations <= 0 || row.PerSecond <= 0 || row.Bytes <= 0 || l["p50"] <= 0 || l["p99"] < l["p50"] || l["p99.9"] < l["p99"] || l["max"] < l["p99.9"] {
			t.Errorf("%+v", row)
		}
	}
	return r
}

// halfFull makes an attached disk of 64 MiB whose first half is data, and
// returns its URI.
func halfFull(t *testing.T, d *testbed.Daemon, name string, flags ...string) string {
	t.Helper()
	uri := d.Disk(name, "64M", flags...)
	testbed.Succeed(t, "nbdcopy", "--flush", randomFile(t, 32*mib, 9), uri)
	return uri
}

// contents are the digests of what clients read, and of the image.
func contents(t *testing.T, d *testbed.Daemon, name, uri string) [2]string {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "plain")
	testbed.Succeed(t, "nbdcopy", uri, plain)
	return [2]string{digest(t, plain), digest(t, d.Image(name))}
}

// allocated is how much storage a file takes, in bytes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestBench(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "64M")
	said := d.Refused(4, "bench", "vol")
	if !strings.Contains(said, "not attached") || !strings.Contains(said, "\nhint: sealdisk disk attach vol\n") {
		t.Errorf("of a detached disk:\n%s", said)
	}
	d.Must("disk", "delete", "vol", "--yes")

	uri := halfFull(t, d, "vol")
	before := contents(t, d, "vol", uri)
	t.Run("reads", func(t *testing.T) {
		d := d.In(t)
		// Beside another client.
		other := hello(t, uri)
		other.transmission("")
		table := d.CLI("bench", "vol", "--time", "10ms")
		lines := strings.Split(strings.TrimSpace(table.Stdout), "\n")
		if table.Code != 0 || len(lines) != 5 || !strings.HasPrefix(lines[0], "WORK") || !strings.Contains(lines[4], "1 MiB sequential read") {
			t.Errorf("%s", table)
		}
		if strings.Contains(table.Stderr, "\r") || !strings.Contains(table.Stderr, "50 % of the range are holes") {
			t.Errorf("stderr:\n%s", table.Stderr)
		}
		r := parseBench(t, d.Must("bench", "vol", "--json", "--time", "10ms", "--connections", "3", "--size", "16M"))
		if len(r.Rows) != 4 || r.Disk != "vol" || r.Range != 16*mib || r.Holes == nil || *r.Holes != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("writes", func(t *testing.T) {
		d := d.In(t)
		took := allocated(t, d.Image("vol"))
		if said := d.Refused(2, "bench", "vol", "--write"); !strings.Contains(said, "--yes") {
			t.Errorf("unasked:\n%s", said)
		}
		r := parseBench(t, d.Must("bench", "vol", "--write", "--yes", "--json", "--time", "10ms", "--connections", "2"))
		if len(r.Rows) != 8 || !r.Rows[7].Write || r.Filled != 32*mib || r.Kept != 0 {
			t.Errorf("%+v", r)
		}
		// A file system may keep a block or two for itself.
		if now := allocated(t, d.Image("vol")); now > took+mib {
			t.Errorf("the image takes %d bytes, before %d", now, took)
		}
	})
	if contents(t, d, "vol", uri) != before {
		t.Error("contents or image have changed")
	}
	t.Run("read-only", func(t *testing.T) {
		d := d.In(t)
		d.Must("disk", "detach", "vol")
		uri = d.Attach("vol", "--read-only")
		d.Must("bench", "vol", "--time", "10ms")
		if said := d.Refused(4, "bench", "vol", "--write", "--yes"); !strings.Contains(said, "read-only") {
			t.Errorf("%s", said)
		}
	})
}

// startBench starts a measurement without end and waits until its connections
// (its own and one that measures) are there.
func startBench(t *testing.T, d *testbed.Daemon, args ...string) (cmd *exec.Cmd, out, errs *bytes.Buffer) {
	t.Helper()
	out, errs = new(bytes.Buffer), new(bytes.Buffer)
	cmd = exec.Command(testbed.Binary(t), append([]string{"--run-dir", d.Run, "bench", "vol", "--json", "--time", "1h"}, args...)...)
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	waitConnections(t, d, 2)
	return cmd, out, errs
}

func waitConnections(t *testing.T, d *testbed.Daemon, want float64) {
	t.Helper()
	connections := func() float64 {
		n, _ := d.Show("vol")["sealdisk"].(map[string]any)["connections"].(float64)
		return n
	}
	if !testbed.Poll(testbed.Deadline, func() bool { return connections() == want }) {
		t.Fatalf("%v connections, want %v", connections(), want)
	}
}

// Whatever ends a measurement of writes early, contents stay.
func TestBenchEndsEarly(t *testing.T) {
	d := testbed.Start(t)
	uri := halfFull(t, d, "vol")
	waitConnections(t, d, 0)
	before := contents(t, d, "vol", uri)
	t.Run("interrupt", func(t *testing.T) {
		for _, args := range [][]string{nil, {"--write", "--yes"}} {
			cmd, out, errs := startBench(t, d.In(t), args...)
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, errs)
			}
			if r := parseBench(t, out.String()); !r.Interrupted || len(r.Rows) > 1 || r.Kept != 0 {
				t.Errorf("%+v", r)
			}
		}
	})
	t.Run("another client", func(t *testing.T) {
		d := d.In(t)
		other := hello(t, uri)
		other.transmission("")
		said := d.Refused(4, "bench", "vol", "--write", "--yes", "--quick")
		if !strings.Contains(said, "another client uses disk vol already") || !strings.Contains(said, "hint: disconnect it") {
			t.Errorf("%s", said)
		}
		other.Close()
		// And one that comes later.
		cmd := exec.Command(testbed.Binary(t), "--run-dir", d.Run, "bench", "vol", "--write", "--yes", "--time", "300ms", "--connections", "2")
		errs := new(bytes.Buffer)
		cmd.Stderr = errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		waitConnections(t, d, 3)
		other = hello(t, uri)
		other.transmission("")
		_ = cmd.Wait()
		if cmd.ProcessState.ExitCode() != 4 || !strings.Contains(errs.String(), "error: another client uses disk vol while") {
			t.Errorf("exit %d\n%s", cmd.ProcessState.ExitCode(), errs)
		}
		other.Close()
		waitConnections(t, d, 0)
	})
	t.Run("kill -9", func(t *testing.T) {
		cmd, _, _ := startBench(t, d.In(t), "--write", "--yes")
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		waitConnections(t, d, 0)
	})
	t.Run("detached", func(t *testing.T) {
		d := d.In(t)
		cmd, _, errs := startBench(t, d)
		d.Must("disk", "detach", "vol")
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 4 || !strings.Contains(errs.String(), "error: disk vol: it was detached meanwhile\nhint: sealdisk disk attach vol\n") {
			t.Errorf("exit %d\n%s", code, errs)
		}
		uri = d.Attach("vol")
	})
	plain := contents(t, d, "vol", uri)
	if plain[0] != before[0] {
		t.Error("contents have changed")
	}
}
