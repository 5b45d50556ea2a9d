// Command runtests runs the project's checks and tests with progress, and ends
// with a summary: "N passed, N failed" alone on the last line. It exits 1 if
// anything failed.
//
//	runtests lint|check|test|vm|long|fuzz
//
// A lint step counts as one test; a test with subtests counts by its subtests.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

func main() {
	fuzzTime := flag.String("fuzztime", "20s", "how long each fuzz target runs")
	verbose := flag.Bool("v", false, "print every test's output")
	flag.Parse()
	r := &runner{verbose: *verbose, start: time.Now()}
	switch flag.Arg(0) {
	case "lint":
		r.lint()
	case "check":
		r.lint()
		r.goTest("unit tests", []string{"-skip", withPrograms}, unitPackages())
	case "test":
		r.lint()
		// Both: what counts allocations leaves itself out under the race detector.
		r.goTest("unit tests", []string{"-timeout", "15m"}, unitPackages())
		r.goTest("unit tests, race detector on", []string{"-race", "-timeout", "15m"}, unitPackages())
		r.tiers()
		r.asRoot = true
		// One package at a time: they start daemons and guests, and have deadlines.
		r.goTest("against real clients and a real kernel", []string{"-p", "1", "-timeout", "15m"}, systemPackages())
	case "vm":
		r.asRoot = true
		r.goTest("on a real kernel", []string{"-tags", "vmlong", "-timeout", "60m"}, []string{"./test/vm/..."})
	case "long":
		r.asRoot = true
		os.Setenv("SEALDISK_POWERCUTS", "10000") // schedules; a child of this process reads it
		r.goTest("long tests", []string{"-tags", "vmlong", "-p", "1", "-timeout", "180m"}, packages())
	case "fuzz":
		r.fuzz(*fuzzTime)
	default:
		fmt.Fprintln(os.Stderr, "usage: runtests [-v] [-fuzztime D] lint|check|test|vm|long|fuzz")
		os.Exit(2)
	}
	os.Exit(r.summary())
}

// tiers runs the cipher's tests where other tiers than this machine's are
// chosen: without assembly, and on arm64 under user-mode emulation.
func (r *runner) tiers() {
	r.goTest("cipher without assembly", []string{"-tags", "purego"}, []string{"./xts"})
	r.env = []string{"GOARCH=arm64", "CGO_ENABLED=0"}
	r.goTest("cipher on arm64", []string{"-exec", "qemu-aarch64-static"}, []string{"./xts"})
	r.env = nil
}

// withPrograms are the unit tests that need something installed beside Go:
// NIST's vectors, python3-cryptography, strace. make test runs them.
const withPrograms = "^(TestNISTVectors|TestSectorsEqualOpenSSL|TestUnitsEqualOpenSSL|TestSystemCalls|TestKernelSyncFails)$"

// packages lists the module's packages.
func packages() []string {
	out, err := exec.Command("go", "list", "-e", "./...").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: go list:", err)
		os.Exit(1)
	}
	return strings.Fields(string(out))
}

// unitPackages need nothing but Go, save withPrograms.
func unitPackages() (pkgs []string) {
	for _, p := range packages() {
		if !strings.Contains(p, "/test/") || strings.HasSuffix(p, "/test/layout") {
			pkgs = append(pkgs, p)
		}
	}
	return pkgs
}

// systemPackages start the binary and other programs.
func systemPackages() (pkgs []string) {
	for _, p := range packages() {
		if strings.Contains(p, "/test/") && !strings.HasSuffix(p, "/test/layout") {
			pkgs = append(pkgs, p)
		}
	}
	return pkgs
}

func (r *runner) lint() {
	r.heading("lint")
	r.command("gofmt", func(out string) string {
		if out != "" {
			return "not formatted:\n" + out
		}
		return ""
	}, "gofmt", "-l", ".")
	r.command("go vet", nil, "go", "vet", "./...")
	r.command("staticcheck", nil, "go", "tool", "-modfile=scripts/tools/go.mod", "staticcheck", "./...")
}

// fuzz runs each fuzz target by itself, as go test wants it.
func (r *runner) fuzz(each string) {
	for _, pkg := range unitPackages() {
		out, err := exec.Command("go", "test", "-list", "^Fuzz", pkg).CombinedOutput()
		if err != nil {
			r.heading(pkg)
			r.failed("list fuzz targets of "+pkg, string(out))
			continue
		}
		for _, target := range strings.Fields(string(out)) {
			if strings.HasPrefix(target, "Fuzz") {
				r.heading(pkg + " " + target)
				r.command(target, lastLine, "go", "test", "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", each, "-fuzzminimizetime", "10x", pkg)
			}
		}
	}
}

// lastLine shows what the fuzzer reached (executions), and finds no fault.
func lastLine(out string) string {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "fuzz: elapsed") {
			out = line
		}
	}
	fmt.Print("    ", out)
	return ""
}
