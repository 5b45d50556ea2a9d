package conformance

import (
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// A disabled key: attached disks go on, nothing new is made or attached with
// it; enabled, the data is back.
func TestDisabledKey(t *testing.T) {
	d := testbed.Start(t)
	d.Must("key", "create", "papers")
	uri := d.Disk("vol", "16M", "--key", "papers")
	nbdsh(t, uri, "h.pwrite(b'secret' * 1000, 4096)\nh.flush()")
	d.Must("key", "disable", "papers", "--yes")

	nbdsh(t, uri, "assert h.pread(6000, 4096) == b'secret' * 1000\nh.pwrite(b'goes on', 0)\nh.flush()")
	d.Refused(6, "disk", "create", "other", "--size", "8M", "--key", "papers")
	d.Refused(3, "disk", "show", "other")
	d.Must("disk", "detach", "vol")
	said := d.Refused(6, "disk", "attach", "vol")
	if !strings.Contains(said, "disabled") {
		t.Errorf("the reason is not told:\n%s", said)
	}
	d.Refused(6, "disk", "attach", "vol") // and is not retried away
	// Another key is not concerned.
	d.Disk("default", "8M")

	d.Must("key", "enable", "papers")
	uri = d.Attach("vol")
	nbdsh(t, uri, "assert h.pread(6000, 4096) == b'secret' * 1000\nassert h.pread(7, 0) == b'goes on'")
}

// The default key can't be disabled.
func TestDefaultKeyIsNotDisabled(t *testing.T) {
	d := testbed.Start(t)
	r := d.CLI("key", "disable", "evs/default", "--yes")
	if r.Code == 0 || !strings.Contains(r.Stderr, "KMS.0211") {
		t.Errorf("want KMS.0211: %s", r)
	}
	d.Disk("vol", "8M")
}

// Without an agency nothing is encrypted, and the error says whom to ask; granted
// once, it holds; revoked, attached disks go on and nothing else does.
func TestAgency(t *testing.T) {
	d := testbed.New(t)
	d.Serve()
	said := d.Refused(5, "disk", "create", "vol", "--size", "8M")
	if !strings.Contains(said, "hint: ") || !strings.Contains(said, "agency grant") {
		t.Errorf("no hint whom to ask:\n%s", said)
	}
	d.Refused(3, "disk", "show", "vol")
	// An unencrypted disk needs no key, so no agency.
	d.Must("disk", "create", "plain", "--size", "8M", "--unencrypted")

	d.Must("agency", "grant")
	d.Must("agency", "grant")
	uri := d.Disk("vol", "8M")
	d.Must("agency", "revoke", "--yes")
	serves(t, uri)
	d.Must("disk", "detach", "vol")
	d.Refused(5, "disk", "attach", "vol")
	d.Must("agency", "grant")
	d.Attach("vol")
}

// A project's agency is its own.
func TestAgencyOfAnotherProject(t *testing.T) {
	d := testbed.Start(t)
	d.Refused(5, "--project", "other", "disk", "create", "vol", "--size", "8M")
}

// A KMS that can't be reached is told as such, not as a refusal.
func TestKMSUnreachable(t *testing.T) {
	d := testbed.New(t)
	d.Flags = []string{"--kms-socket", d.Run + "/nosuch.sock"}
	d.Serve()
	d.Refused(7, "disk", "create", "vol", "--size", "8M")
}
