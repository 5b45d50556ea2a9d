package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// The demo tells the truth, asks nothing, and leaves nothing behind.
func TestDemo(t *testing.T) {
	tmp, err := os.MkdirTemp("", "demo") // a short path: sockets are made below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	r := testbed.Exec(t, []string{"SEALDISK_BIN=" + testbed.Binary(t), "TMPDIR=" + tmp}, "../../scripts/demo.sh")
	if r.Code != 0 || !strings.Contains(r.Stdout, "All of it was true") {
		t.Errorf("%s", r)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// A demo that finds its story untrue says so by its exit status.
func TestDemoFails(t *testing.T) {
	dir := t.TempDir()
	// A sealdisk that attaches with whatever key.
	fake := filepath.Join(dir, "sealdisk")
	script := "#!/bin/sh\n[ \"$1 $2\" = 'key disable' ] && exit 0\nexec " + testbed.Binary(t) + " \"$@\"\n"
	if err := os.WriteFile(fake, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r := testbed.Exec(t, []string{"SEALDISK_BIN=" + fake}, "../../scripts/demo.sh")
	if r.Code == 0 || !strings.Contains(r.Stderr, "expected 6") {
		t.Errorf("a disabled key that still attaches goes unnoticed: %s", r)
	}
}
