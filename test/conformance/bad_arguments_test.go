package conformance

import (
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// Bad arguments are usage errors with a hint, and change nothing.
func TestBadArguments(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	for _, c := range []struct {
		name string
		code int
		args []string
	}{
		{"empty name", 2, []string{"disk", "create", "", "--size", "8M"}},
		{"long name", 2, []string{"disk", "create", strings.Repeat("n", 5000), "--size", "8M"}},
		{"path-like name", 2, []string{"disk", "create", "../etc", "--size", "8M"}},
		{"absolute name", 2, []string{"disk", "create", "/vol", "--size", "8M"}},
		{"dots", 2, []string{"disk", "create", "..", "--size", "8M"}},
		{"control characters", 2, []string{"disk", "create", "a\nb", "--size", "8M"}},
		{"invalid UTF-8", 2, []string{"disk", "create", "a\xffb", "--size", "8M"}},
		{"taken name", 4, []string{"disk", "create", "vol", "--size", "8M"}},
		{"no size", 2, []string{"disk", "create", "new"}},
		{"size 0", 2, []string{"disk", "create", "new", "--size", "0"}},
		{"negative size", 2, []string{"disk", "create", "new", "--size", "-1G"}},
		{"size no multiple of 4096", 2, []string{"disk", "create", "new", "--size", "10K"}},
		{"size that overflows", 2, []string{"disk", "create", "new", "--size", "99999999999999999999G"}},
		{"words for a size", 2, []string{"disk", "create", "new", "--size", "big"}},
		{"unknown sector size", 2, []string{"disk", "create", "new", "--size", "8M", "--sector-size", "1024"}},
		{"unknown key", 3, []string{"disk", "create", "new", "--size", "8M", "--key", "nosuch"}},
		{"key and unencrypted", 2, []string{"disk", "create", "new", "--size", "8M", "--key", "evs/default", "--unencrypted"}},
		{"unknown disk", 3, []string{"disk", "attach", "nosuch"}},
		{"unknown command", 2, []string{"disk", "frobnicate"}},
		{"unknown flag", 2, []string{"disk", "list", "--frobnicate"}},
		{"no argument", 2, []string{"disk", "attach"}},
		{"delete without --yes", 2, []string{"disk", "delete", "vol"}},
		{"bad project", 2, []string{"--project", "../x", "disk", "list"}},
		{"bad output", 2, []string{"--output", "xml", "disk", "list"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.In(t).Refused(c.code, c.args...)
		})
	}
	out := d.Must("disk", "list", "--output", "json")
	if strings.Count(out, `"name"`) != 1 {
		t.Errorf("disks after all these refusals: %s", out)
	}
}

// Without a daemon every command says so, with its own exit code.
func TestNoDaemon(t *testing.T) {
	d := testbed.New(t)
	for _, args := range [][]string{{"status"}, {"disk", "list"}, {"disk", "attach", "vol"}, {"key", "list"}, {"agency", "show"}} {
		r := d.CLI(args...)
		if want := map[bool]int{true: 7, false: 8}[args[0] == "key" || args[0] == "agency"]; r.Code != want && r.Code != 8 {
			t.Errorf("want exit %d: %s", want, r)
		}
		if !strings.Contains(r.Stderr, "hint: ") {
			t.Errorf("no hint: %s", r)
		}
	}
}
