package vm

import (
	"strings"
	"testing"
	"time"
)

// The harness must not report as passed what failed, hung or crashed.
func TestHarness(t *testing.T) {
	for _, c := range []struct {
		what    string
		timeout time.Duration
		passed  string
		failed  string
		ended   bool
		killed  bool
	}{
		{what: "pass", timeout: time.Minute, passed: "boots with nbd, a step passes", ended: true},
		{what: "fail", timeout: time.Minute, passed: "boots with nbd", failed: "the reason"},
		{what: "late", timeout: time.Minute, passed: "boots with nbd", failed: "exit 124"},
		{what: "crash", timeout: time.Minute, passed: "boots with nbd"},
		{what: "hang", timeout: 10 * time.Second, passed: "boots with nbd", killed: true},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := Guest{Scenario: "selftest", Binary: "/bin/true", Timeout: c.timeout, Params: []string{"what=" + c.what}}.Run(t)
			if got := strings.Join(r.Passed, ", "); got != c.passed {
				t.Errorf("passed %q, want %q\n%s", got, c.passed, tail(r.Console, 2000))
			}
			if !strings.Contains(r.Failed, c.failed) || (c.failed == "") != (r.Failed == "") {
				t.Errorf("failed %q, want %q", r.Failed, c.failed)
			}
			if r.Ended != c.ended || r.Killed != c.killed {
				t.Errorf("ended %v, killed %v; want %v, %v", r.Ended, r.Killed, c.ended, c.killed)
			}
		})
	}
}
