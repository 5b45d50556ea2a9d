package testbed

import (
	"encoding/json"
	"path/filepath"
	"strings"
)

// CLI runs a command of sealdisk against this daemon.
func (d *Daemon) CLI(args ...string) Result {
	d.T.Helper()
	env := []string{"SEALDISK_RUN_DIR=" + d.Run, "SEALDISK_PROJECT=default"}
	return Exec(d.T, env, append([]string{Binary(d.T)}, args...)...)
}

// Must runs a command that has to succeed and returns its standard output.
func (d *Daemon) Must(args ...string) string {
	d.T.Helper()
	r := d.CLI(args...)
	if r.Code != 0 {
		d.T.Fatal(r)
	}
	return strings.TrimSpace(r.Stdout)
}

// Refused runs a command that has to fail with this exit code, and say why and
// not panic; it returns what it said.
func (d *Daemon) Refused(code int, args ...string) string {
	d.T.Helper()
	r := d.CLI(args...)
	switch {
	case r.Code != code:
		d.T.Errorf("exit code %d, want %d: %s", r.Code, code, r)
	case !strings.HasPrefix(r.Stderr, "error: "):
		d.T.Errorf("stderr does not begin with \"error: \": %s", r)
	case strings.Contains(r.Stderr, "goroutine "):
		d.T.Errorf("a panic: %s", r)
	}
	return r.Stderr
}

// Disk makes a disk, attaches it, and returns its URI.
func (d *Daemon) Disk(name, size string, flags ...string) string {
	d.T.Helper()
	d.Must(append([]string{"disk", "create", name, "--size", size}, flags...)...)
	return d.Attach(name)
}

// Attach attaches a disk and returns its URI.
func (d *Daemon) Attach(name string, flags ...string) string {
	d.T.Helper()
	uri := d.Must(append([]string{"disk", "attach", name}, flags...)...)
	if !strings.HasPrefix(uri, "nbd+unix:///") || strings.ContainsAny(uri, " \n") {
		d.T.Fatalf("attach printed %q, want a URI alone", uri)
	}
	return uri
}

// Socket is the path in a URI.
func Socket(uri string) string {
	_, path, _ := strings.Cut(uri, "?socket=")
	return path
}

// Show is `disk show` as a map.
func (d *Daemon) Show(name string) map[string]any {
	d.T.Helper()
	var m map[string]any
	out := d.Must("disk", "show", name, "--output", "json")
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		d.T.Fatalf("disk show: %v\n%s", err, out)
	}
	return m
}

// ID of a disk.
func (d *Daemon) ID(name string) string {
	d.T.Helper()
	id, _ := d.Show(name)["id"].(string)
	if id == "" {
		d.T.Fatalf("disk show %s has no id: %v", name, d.Show(name))
	}
	return id
}

// Image is the path of a disk's backing file.
func (d *Daemon) Image(name string) string {
	d.T.Helper()
	return filepath.Join(d.State, "disks", d.ID(name), "disk.img")
}
