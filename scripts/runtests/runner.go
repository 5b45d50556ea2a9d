package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

type runner struct {
	asRoot        bool     // run go test as root, if need be of a user namespace
	env           []string // added to the environment of go test
	verbose       bool
	start         time.Time
	passed, failN int
	skipped       []string
	failures      []string
}

func (r *runner) heading(s string) {
	fmt.Printf("\n== %s\n", s)
}

func (r *runner) failed(name, output string) {
	r.failN++
	r.failures = append(r.failures, name)
	fmt.Printf("FAIL  %s\n%s\n", name, indent(output))
}

// command runs a program as one test. check, if any, finds a fault in the
// output of a program that succeeded.
func (r *runner) command(name string, check func(string) string, argv ...string) {
	start := time.Now()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	text := string(out)
	fault := ""
	switch {
	case err != nil:
		fault = fmt.Sprintf("%s%v", text, err)
	case check != nil:
		fault = check(text)
	}
	if fault != "" {
		r.failed(name, fault)
		return
	}
	r.passed++
	fmt.Printf("ok    %-44s %6.1fs\n", name, time.Since(start).Seconds())
}

// event is a line of `go test -json`.
type event struct {
	Action, Package, Test, Output, ImportPath, FailedBuild string
	Elapsed                                                float64
}

// goTest runs go test over pkgs.
func (r *runner) goTest(title string, flags, pkgs []string) {
	r.heading(title)
	if len(pkgs) == 0 {
		r.failed(title, "no packages found")
		return
	}
	argv := append(append([]string{"go", "test", "-json", "-count=1"}, flags...), pkgs...)
	if r.asRoot && os.Getuid() != 0 {
		// Root of a user namespace may mount a small file system and trace the daemon.
		argv = append([]string{"unshare", "--user", "--map-root-user", "--mount"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), r.env...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.failed(title, err.Error())
		return
	}
	c := collector{r: r, byTest: map[string]*testRun{}, build: map[string]string{}, counts: map[string]int{}}
	sc := bufio.NewScanner(stdout)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			fmt.Println(sc.Text())
			continue
		}
		c.take(e)
	}
	before := r.failN
	if err := cmd.Wait(); err != nil && before == 0 && c.fails == 0 {
		r.failed(title, "go test: "+err.Error())
	}
}

// collector follows the tests of one go test.
type collector struct {
	r      *runner
	byTest map[string]*testRun
	build  map[string]string // build output by import path
	counts map[string]int    // tests passed by package
	fails  int
}

type testRun struct {
	output      strings.Builder
	parent      bool // has subtests, which are counted instead
	childFailed bool
}

func (c *collector) run(pkg, test string) *testRun {
	id := pkg + " " + test
	if c.byTest[id] == nil {
		c.byTest[id] = &testRun{}
	}
	return c.byTest[id]
}

func (c *collector) take(e event) {
	name := strings.TrimPrefix(e.Package, "sealdisk/")
	if e.Test != "" {
		name += " " + e.Test
	}
	switch e.Action {
	case "build-output":
		c.build[e.ImportPath] += e.Output
	case "run":
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			c.run(e.Package, e.Test[:i]).parent = true
		}
	case "output":
		c.run(e.Package, e.Test).output.WriteString(e.Output)
		if c.r.verbose {
			fmt.Print(e.Output)
		}
	case "skip":
		if e.Test != "" {
			c.r.skipped = append(c.r.skipped, name)
		}
	case "pass":
		if e.Test == "" {
			fmt.Printf("ok    %-44s %6.1fs  %d tests\n", name, e.Elapsed, c.counts[e.Package])
			return
		}
		if !c.run(e.Package, e.Test).parent {
			c.r.passed++
			c.counts[e.Package]++
		}
		// Slow tests show that something goes on.
		if !strings.Contains(e.Test, "/") && e.Elapsed >= 2 {
			fmt.Printf("      %-44s %6.1fs\n", e.Test, e.Elapsed)
		}
	case "fail":
		c.fail(e, name)
	}
}

func (c *collector) fail(e event, name string) {
	run := c.run(e.Package, e.Test)
	if e.Test != "" {
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			c.run(e.Package, e.Test[:i]).childFailed = true
		}
		if run.childFailed {
			return // told with the subtest
		}
		c.fails++
		c.counts["fail "+e.Package]++
		c.r.failed(name, run.output.String())
		return
	}
	// A package fails by its tests, or by itself: not built, panic, time-out, TestMain.
	fmt.Printf("FAIL  %-44s %6.1fs\n", name, e.Elapsed)
	if c.counts["fail "+e.Package] == 0 {
		c.fails++
		c.r.failed(name, c.build[e.FailedBuild]+c.unfinished(e.Package)+run.output.String())
	}
}

// unfinished is the output of the package's tests: a panic or a time-out is in
// one of them.
func (c *collector) unfinished(pkg string) string {
	var b strings.Builder
	for id, run := range c.byTest {
		if strings.HasPrefix(id, pkg+" ") && id != pkg+" " && strings.Contains(run.output.String(), "panic:") {
			b.WriteString(run.output.String())
		}
	}
	return b.String()
}

func (r *runner) summary() int {
	fmt.Printf("\n== summary, after %v\n", time.Since(r.start).Round(time.Second))
	for _, s := range r.skipped {
		fmt.Println("skipped:", s)
	}
	for _, f := range r.failures {
		fmt.Println("failed:", f)
	}
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failN)
	if r.failN > 0 || r.passed == 0 {
		return 1
	}
	return 0
}

func indent(s string) string {
	const most = 200 // lines
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > most {
		lines = append(append(lines[:most/2:most/2], "…"), lines[len(lines)-most/2:]...)
	}
	return "    " + strings.Join(lines, "\n    ")
}
