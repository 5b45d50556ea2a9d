package conformance

import (
	"fmt"
	"syscall"
	"testing"

	"sealdisk/test/testbed"
)

// The KMS dies: it comes back by itself, and attached disks do not notice.
func TestKMSKilled(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	r := hello(t, uri)
	r.transmission("vol")
	before := d.Child("kms serve")
	kill(t, before)
	r.request(0, cmdRead, 1, 0, 512, "")
	if e := r.simpleReply(1); e != 0 {
		t.Errorf("read on the old connection: error %d", e)
	}
	r.read(512)
	serves(t, uri)
	if !testbed.Poll(testbed.Deadline, func() bool { now := d.Child("kms serve"); return now != 0 && now != before }) {
		t.Fatal("the KMS was not started again")
	}
	if !testbed.Poll(testbed.Deadline, func() bool { return d.CLI("key", "list").Code == 0 }) {
		t.Fatal(d.CLI("key", "list"))
	}
	d.Disk("after", "16M")
	r.request(0, cmdRead, 2, 0, 512, "")
	if e := r.simpleReply(2); e != 0 {
		t.Errorf("read on the old connection afterwards: error %d", e)
	}
}

// The engine dies: it comes back, the disks that were attached are attached
// again under the same URI, with what was acknowledged.
func TestEngineKilled(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	d.Must("disk", "create", "detached", "--size", "8M")
	nbdsh(t, uri, "h.pwrite(b'before' * 1000, 4096)")
	before := d.Child("engine")
	kill(t, before)
	expectAttached(t, d, "vol", uri)
	if now := d.Child("engine"); now == before || now == 0 {
		t.Errorf("engine %d, before %d", now, before)
	}
	// A killed process loses nothing that was acknowledged: the page cache survives it.
	nbdsh(t, uri, "assert h.pread(6000, 4096) == b'before' * 1000")
	if state := d.Show("detached")["status"]; state != "available" {
		t.Errorf("the detached disk is %v", state)
	}
}

// The launcher dies: its children die with it, and the next one attaches again
// what was attached.
func TestLauncherKilled(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	nbdsh(t, uri, "h.pwrite(b'before' * 1000, 4096)")
	d.Kill() // asserts that no child outlives it
	d.Serve()
	expectAttached(t, d, "vol", uri)
	nbdsh(t, uri, "assert h.pread(6000, 4096) == b'before' * 1000")
}

// A polite stop detaches cleanly, and the next start attaches again, unless
// told not to.
func TestStopAndStart(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	nbdsh(t, uri, "h.pwrite(b'before' * 1000, 4096)")
	d.Stop()
	d.Serve()
	expectAttached(t, d, "vol", uri)
	nbdsh(t, uri, "assert h.pread(6000, 4096) == b'before' * 1000")
	d.Stop()
	d.Flags = []string{"--no-reattach"}
	d.Serve()
	if state := d.Show("vol")["status"]; state != "available" {
		t.Errorf("with --no-reattach the disk is %v", state)
	}
}

// kill -9 of the engine at arbitrary moments of create, attach, detach and
// delete: the catalog recovers, every disk is whole or gone, and the name can be
// used.
func TestKilledInTheMiddle(t *testing.T) {
	d := testbed.Start(t)
	for i := range 8 {
		name := fmt.Sprintf("vol%d", i)
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.CLI("disk", "create", name, "--size", "8M")
			d.CLI("disk", "attach", name)
			d.CLI("disk", "detach", name)
			d.CLI("disk", "delete", name, "--yes")
		}()
		// The moment is a different one each time: after so many answers of another kind.
		for range i * 3 {
			d.CLI("version")
		}
		kill(t, d.Child("engine"))
		<-done
		if !testbed.Poll(testbed.Deadline, func() bool { return d.CLI("disk", "list").Code == 0 }) {
			t.Fatalf("round %d: %s", i, d.CLI("disk", "list"))
		}
		if r := d.CLI("disk", "show", name); r.Code == 0 {
			if !testbed.Poll(testbed.Deadline, func() bool {
				s := d.Show(name)["status"]
				return s == "available" || s == "in-use"
			}) {
				t.Errorf("round %d: the disk stays %v", i, d.Show(name)["status"])
			}
			d.CLI("disk", "detach", name)
			d.Must("disk", "delete", name, "--yes")
		} else if r.Code != 3 {
			t.Errorf("round %d: %s", i, r)
		}
		d.Disk(name, "8M")
		d.Must("disk", "detach", name)
		d.Must("disk", "delete", name, "--yes")
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid == 0 {
		t.Fatal("no such process")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func expectAttached(t *testing.T, d *testbed.Daemon, name, uri string) {
	t.Helper()
	if !testbed.Poll(testbed.Deadline, func() bool {
		return testbed.Exec(t, nil, "nbdinfo", "--size", uri).Code == 0
	}) {
		t.Fatalf("%s is not served again: %s", name, d.CLI("disk", "show", name))
	}
	if state := d.Show(name)["status"]; state != "in-use" {
		t.Errorf("the disk is %v, want in-use", state)
	}
}
