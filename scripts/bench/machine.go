package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// describeMachine says in Markdown what the figures were measured on; o may be
// nil.
func describeMachine(ctx context.Context, o *options) string {
	var b strings.Builder
	item := func(what, is string) {
		if is != "" {
			fmt.Fprintf(&b, "- %s: %s\n", what, is)
		}
	}
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	item("CPU", fmt.Sprintf("%s, %d cores", cpuModel(string(cpuinfo)), runtime.NumCPU()))
	item("CPU features", cpuFeatures(string(cpuinfo)))
	meminfo, _ := os.ReadFile("/proc/meminfo")
	item("memory", memorySize(string(meminfo)))
	loadavg, _ := os.ReadFile("/proc/loadavg")
	item("processes that ran or waited in the minute before", fmt.Sprintf("%.1f", load(string(loadavg))))
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		item("kernel", unix.ByteSliceToString(u.Sysname[:])+" "+unix.ByteSliceToString(u.Release[:])+" "+unix.ByteSliceToString(u.Machine[:]))
	}
	for _, p := range [][]string{{"fio", "fio", "--version"}, {"nbdkit", "nbdkit", "--version"}, {"qemu-nbd", "qemu-nbd", "--version"}, {"Go", "go", "version"}} {
		out, err := command(ctx, nil, p[1:]...)
		first, _, _ := strings.Cut(out, "\n")
		if err != nil {
			first = "not found"
		}
		item(p[0], strings.TrimPrefix(first, "go version "))
	}
	if o != nil {
		for _, build := range o.builds {
			out, _ := command(ctx, nil, build.Path, "version")
			first, _, _ := strings.Cut(out, "\n")
			item("target "+build.Name, first)
		}
	}
	return b.String()
}

// field is the value of the first line "name : value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func cpuModel(cpuinfo string) string {
	model := field(cpuinfo, "model name")
	if model == "" { // arm64 gives numbers
		model = "implementer " + field(cpuinfo, "CPU implementer") + " part " + field(cpuinfo, "CPU part")
	} else {
		model += fmt.Sprintf(" (family %s, model %s)", field(cpuinfo, "cpu family"), field(cpuinfo, "model"))
	}
	return model
}

// cpuFeatures are those that matter to the cipher.
func cpuFeatures(cpuinfo string) string {
	flags := strings.Fields(field(cpuinfo, "flags") + " " + field(cpuinfo, "Features"))
	var have []string
	for _, f := range []string{"aes", "pclmulqdq", "avx2", "vaes", "vpclmulqdq", "avx512f", "pmull", "hypervisor"} {
		if slices.Contains(flags, f) {
			have = append(have, f)
		}
	}
	return strings.Join(have, " ")
}

func memorySize(meminfo string) string {
	var kib int64
	if _, err := fmt.Sscanf(field(meminfo, "MemTotal"), "%d kB", &kib); err != nil {
		return ""
	}
	return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
}

// load is the average of the last minute.
func load(loadavg string) (avg float64) {
	_, _ = fmt.Sscan(loadavg, &avg) // unreadable: 0
	return avg
}

// warnOfLoad says so if others use the machine: they are in the figures.
func warnOfLoad() {
	const much = 0.5
	loadavg, _ := os.ReadFile("/proc/loadavg")
	if avg := load(string(loadavg)); avg > much {
		fmt.Fprintf(os.Stderr, "warning: %.1f processes ran in the last minute: what others do is in the figures too\n", avg)
	}
}
