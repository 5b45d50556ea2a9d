package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	o, err := parseOptions(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.peers, peerNames()) || !slices.Equal(o.variants, allVariants) || o.time != 3*time.Second || o.main != "sealdisk" {
		t.Errorf("without flags: %+v", o)
	}
	o, err = parseOptions([]string{"-quick", "-reps", "1", "-peers", "qemu-luks"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.rows, []string{"core"}) || !slices.Equal(o.peers, []string{"qemu-luks"}) || o.reps != 1 || !slices.Equal(o.variants, []string{encrypted}) {
		t.Errorf("-quick with flags of one's own: %+v", o)
	}
	o, err = parseOptions([]string{"-target", "base=/a", "-target", "new=./b", "-peers", "nbdkit-null,nbdkit-file", "-variants", "plain,encrypted"})
	if err != nil {
		t.Fatal(err)
	}
	if got := mainColumn(o); got != "new" {
		t.Errorf("ratios are of %s, want new", got)
	}
	only, err := parseOptions([]string{"-variants", "plain"})
	if err != nil || mainColumn(only) != "sealdisk-plain" || columns(only)[0] != "sealdisk-plain" {
		t.Errorf("without an encrypted disk ratios are of %s: %v", mainColumn(only), err)
	}
	want := []string{"new", "base", "new-plain", "base-plain", "nbdkit-file", "nbdkit-null"}
	if got := columns(o); !slices.Equal(got, want) || o.main != "new" {
		t.Errorf("two builds: columns %q of %s, want %q of new", got, o.main, want)
	}
}

func TestOptionsRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag":        {"-nonsense"},
		"an argument":         {"core"},
		"no such peer":        {"-peers", "nbdkit-file,nginx"},
		"no such variant":     {"-variants", "1024"},
		"no variant":          {"-variants", "none"},
		"no such row":         {"-rows", "core,warm"},
		"a pattern of none":   {"-rows", "randread 8k *"},
		"target without path": {"-target", "base"},
		"odd target name":     {"-target", "Base One=/a"},
		"two of one name":     {"-target", "a=/a", "-target", "a=/b"},
		"named like a peer":   {"-target", "nbdkit-file=/a"},
		"no such main":        {"-target", "a=/a", "-main", "b"},
		"no turns":            {"-reps", "0"},
		"no time":             {"-time", "0"},
		"tiny disks":          {"-size", "1"},
	} {
		if _, err := parseOptions(args); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v, want errUsage", name, err)
		}
	}
}

func TestSelectCells(t *testing.T) {
	for _, c := range []struct {
		rows string
		want int
	}{{"core", 8}, {"mix", 2}, {"conns", 8}, {"cold", 3}, {"all", 21}, {"core,randread 4k qd1", 8}, {"randread 4k *", 4}, {"* x4", 9}, {"memory", 0}} {
		if got := selectCells(splitList(c.rows)); len(got) != c.want {
			t.Errorf("%s: %d rows, want %d: %v", c.rows, len(got), c.want, got)
		}
	}
	names := map[string]bool{}
	for _, c := range selectCells([]string{"all"}) {
		if names[c.name()] {
			t.Errorf("two rows are named %q", c.name())
		}
		names[c.name()] = true
	}
}

func TestParseMemory(t *testing.T) {
	rollup := "556f0a1b2000-7ffd6c5f0000 ---p 00000000 00:00 0    [rollup]\nRss:               15360 kB\nPss:               10240 kB\nPss_Dirty:          9000 kB\nAnonymous:          8192 kB\n"
	m, err := parseMemory(rollup)
	if want := (memory{Rss: 15, Pss: 10, Anon: 8}); err != nil || m != want {
		t.Errorf("smaps_rollup: %+v, %v, want %+v", m, err, want)
	}
	m, err = parseMemory("Name:\tsealdisk\nVmRSS:\t   20480 kB\nRssAnon:\t    1024 kB\n")
	if want := (memory{Rss: 20, Anon: 1}); err != nil || m != want {
		t.Errorf("status: %+v, %v, want %+v", m, err, want)
	}
	if _, err := parseMemory("Name:\tkthreadd\n"); err == nil {
		t.Error("no memory, and no error")
	}
	if m, err := readMemory(os.Getpid()); err != nil || m.Rss == 0 {
		t.Errorf("of this process: %+v, %v", m, err)
	}
}

func TestCPUTime(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		after, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("this loop takes no CPU time")
		}
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := cpuTime(ended.Process.Pid); err == nil {
		t.Error("CPU time of no process")
	}
}

// TestTempDirRemovesLeftovers: a killed run's files go with the next run, those of
// a run under way stay.
func TestTempDirRemovesLeftovers(t *testing.T) {
	parent := t.TempDir()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(parent, "sealdisk-bench."+strconv.Itoa(ended.Process.Pid)+".1")
	alive := filepath.Join(parent, "sealdisk-bench."+strconv.Itoa(os.Getpid())+".1")
	other := filepath.Join(parent, "sealdisk-bench.notes")
	for _, dir := range []string{dead, alive, other} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	made, err := tempDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{dead: false, alive: true, other: true, made: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: there: %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}

// TestServersEnd: a server and what it started end when it is stopped, and one
// that ends by itself is noticed with its last words.
func TestServersEnd(t *testing.T) {
	dir := t.TempDir()
	p, err := startProcess("server", dir+"/log", "sh", "-c", "trap '' TERM; sleep 60 & echo started; wait; wait")
	if err != nil {
		t.Fatal(err)
	}
	started := func() bool { return strings.Contains(p.lastWords(), "started") }
	if err := p.waitFor("start", started); err != nil {
		t.Fatal(err)
	}
	if p.groupChild("60") == 0 {
		t.Error("its child is not found")
	}
	p.patience = 50 * time.Millisecond
	p.stop()
	if p.groupChild("60") != 0 {
		t.Error("its child goes on")
	}
	p, err = startProcess("server", dir+"/log", "sh", "-c", "echo no room; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.waitFor("socket", func() bool { return false }); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("a server that ends at once: %v", err)
	}
	if err := p.alive(); err == nil {
		t.Error("it is said to be alive")
	}
}

func TestMachine(t *testing.T) {
	info := "processor\t: 0\nmodel name\t: A CPU\ncpu family\t: 6\nmodel\t\t: 7\nflags\t\t: fpu aes vaes\n"
	if got := cpuModel(info); got != "A CPU (family 6, model 7)" {
		t.Errorf("model %q", got)
	}
	if got := cpuFeatures(info); got != "aes vaes" {
		t.Errorf("features %q", got)
	}
	if got := load("10.65 9.7 6.01 3/99 1234\n"); got != 10.65 {
		t.Errorf("load %v", got)
	}
	if got := memorySize("MemTotal:       16777216 kB\n"); got != "16.0 GiB" {
		t.Errorf("memory %q", got)
	}
}
