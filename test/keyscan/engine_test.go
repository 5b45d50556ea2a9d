package keyscan

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sealdisk/test/testbed"
)

// scans is how often the engine is stopped in the middle of its work and
// looked through.
const scans = 8

// subject is an engine with an attached disk whose key is known.
type subject struct {
	*testbed.Daemon
	engine  int
	uri     string
	needles *Needles
	tier    string // of the AES-XTS code
}

func newSubject(t *testing.T, prepare func(*testbed.Daemon)) *subject {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can read another process's memory (make test runs this as root)")
	}
	s := &subject{Daemon: testbed.New(t)}
	if prepare != nil {
		prepare(s.Daemon)
	}
	s.Serve()
	s.Must("agency", "grant")
	s.uri = s.Disk("vault", "64M")
	var status struct {
		Cipher    string
		Processes struct{ Engine int }
	}
	if err := json.Unmarshal([]byte(s.Must("status", "--output", "json")), &status); err != nil {
		t.Fatal(err)
	}
	s.engine, s.tier = status.Processes.Engine, status.Cipher
	dk := s.DK("vault")
	defer clear(dk)
	var err error
	if s.needles, err = KeyNeedles(dk); err != nil {
		t.Fatal(err)
	}
	return s
}

// load reads and writes the disk until the test ends it.
func (s *subject) load(t *testing.T) (stop func()) {
	t.Helper()
	cmd := exec.Command(testbed.Tool(t, "fio"), "--name=load", "--ioengine=nbd", "--uri="+s.uri, "--rw=randrw", "--bssplit=512/20:4k/40:64k/20:256k/20",
		"--iodepth=16", "--size=64M", "--time_based", "--runtime=300")
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !testbed.Poll(testbed.Deadline, func() bool { return strings.Contains(s.Log(), "connected") }) {
		t.Fatalf("fio does not connect: %s", s.Log())
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(stop)
	return stop
}

// scan looks through the engine and checks that it could see what there is to
// see.
func (s *subject) scan(t *testing.T) *Report {
	t.Helper()
	rep, err := ScanProcess(s.engine, s.needles)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Bytes < 10<<20 || rep.Threads < 3 {
		t.Errorf("only %d bytes of %d threads were seen", rep.Bytes, rep.Threads)
	}
	for _, r := range rep.Unreadable {
		if !strings.HasPrefix(r.Name, "/secretmem") && !strings.HasPrefix(r.Name, "[v") { // [vvar], [vsyscall]
			t.Errorf("the scan is blind in %+v", r)
		}
	}
	return rep
}

// secret counts the mappings of secret memory, which the scan must not see.
func (s *subject) secret(t *testing.T) (n int) {
	t.Helper()
	maps, err := Maps(s.engine)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if strings.HasPrefix(m.Name, "/secretmem") {
			n++
		}
	}
	return n
}

// pause lets the load go on between two scans: by a millisecond more each time,
// so that the engine is caught at different points.
func pause(i int) { <-time.After(time.Duration(20+i) * time.Millisecond) }

// While a disk is attached and in use, no part of its key, in no form, lies
// in the engine's memory outside the key pages, which cannot be read; after detach,
// they are gone too.
func TestEngineHoldsNoKey(t *testing.T) {
	s := newSubject(t, nil)
	stop := s.load(t)
	if n := s.secret(t); n != 1 {
		t.Fatalf("%d mappings of secret memory, want 1", n)
	}
	for i := range scans {
		pause(i)
		for _, f := range s.scan(t).Findings {
			s.judge(t, "under load", f)
		}
	}
	launcher, err := ScanMemory(s.PID(), s.needles)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range launcher.Findings {
		t.Errorf("in the launcher: %v", f)
	}
	s.Must("disk", "detach", "vault")
	stop()
	if n := s.secret(t); n != 0 {
		t.Errorf("%d mappings of secret memory after detach", n)
	}
	for _, f := range s.scan(t).Findings {
		t.Errorf("after detach: %v", f)
	}
}

// judge fails the test for a finding that is not allowed. Registers are not
// promised to be free of keys.
func (s *subject) judge(t *testing.T, when string, f Finding) {
	t.Helper()
	if strings.HasPrefix(f.Where, RegistersOf) {
		t.Logf("%s, told only: %v", when, f)
		return
	}
	t.Errorf("%s: %v", when, f)
}

// The pure-Go tier makes no promise: what the compiler and the scheduler copy
// from the key pages to stacks is told. Goroutines' stacks lie in the heap's
// anonymous memory; a finding in any other place is a failure.
func TestPureGoTierIsTold(t *testing.T) {
	s := newSubject(t, func(d *testbed.Daemon) { d.Program = built(t, "-tags", "purego") })
	if s.tier != "generic" {
		t.Fatalf("the tier is %q", s.tier)
	}
	s.load(t)
	told := 0
	for i := range scans / 2 {
		pause(i)
		for _, f := range s.scan(t).Findings {
			if f.Where != "" && f.Where != "[stack]" && !strings.HasPrefix(f.Where, RegistersOf) {
				t.Errorf("outside the stacks: %v", f)
			}
			told++
			t.Logf("told: %v", f)
		}
	}
	t.Logf("%d findings in %d scans", told, scans/2)
}

// The fallback's pages can be read by root. There, and only there, the
// scan finds the key: so it would have found it elsewhere.
func TestScanSeesTheFallbacksPages(t *testing.T) {
	s := newSubject(t, func(d *testbed.Daemon) { d.Prefix = prefix(t) })
	stop := s.load(t)
	for i := range scans / 2 {
		pause(i)
		inPages := 0
		for _, f := range s.scan(t).Findings {
			if strings.HasPrefix(f.Where, "/memfd:sealdisk-key-pages") {
				inPages++
				continue
			}
			s.judge(t, "under load", f)
		}
		if inPages < 10 {
			t.Errorf("only %d findings in the key pages: the scan misses things", inPages)
		}
	}
	s.Must("disk", "detach", "vault")
	stop()
	for _, f := range s.scan(t).Findings {
		t.Errorf("after detach: %v", f)
	}
}

// A build that keeps the key on the heap is caught, while the disk is
// attached and afterwards.
func TestLeakIsCaught(t *testing.T) {
	s := newSubject(t, func(d *testbed.Daemon) { d.Program = leaky(t) })
	for _, when := range []string{"attached", "detached"} {
		known, schedules := 0, 0
		for _, f := range s.scan(t).Findings {
			if strings.Contains(f.What, "schedule, round keys") {
				schedules++
			} else {
				known++
			}
		}
		if known == 0 || schedules == 0 {
			t.Errorf("%s: %d fragments of the key and %d schedules found, want some of both", when, known, schedules)
		}
		if when == "attached" {
			s.Must("disk", "detach", "vault")
		}
	}
}
