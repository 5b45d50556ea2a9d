package conformance

import (
	"os/exec"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// Two daemons on one state directory: the second is refused, the first does
// not notice.
func TestSecondDaemonIsRefused(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	second := testbed.New(t)
	second.State = d.State
	err := second.TryServe()
	if err == nil {
		t.Fatal("a second daemon serves the same state")
	}
	if !strings.Contains(err.Error(), "error: ") {
		t.Errorf("no clear error: %v", err)
	}
	serves(t, uri)
	d.Must("disk", "create", "another", "--size", "8M")

	// In the same run directory likewise.
	third := testbed.New(t)
	third.Run = d.Run
	if err := third.TryServe(); err == nil {
		t.Error("a second daemon serves in the same run directory")
	}
	serves(t, uri)
	d.Must("status")
}

// Attaching twice is a conflict; the first attachment goes on.
func TestAttachTwice(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	d.Refused(4, "disk", "attach", "vol")
	serves(t, uri)
	d.Must("disk", "detach", "vol")
	d.Refused(4, "disk", "detach", "vol")
}

// An attached disk is not deleted.
func TestDeleteWhileAttached(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	d.Refused(4, "disk", "delete", "vol", "--yes")
	serves(t, uri)
	d.Must("disk", "detach", "vol")
	d.Must("disk", "delete", "vol", "--yes")
	d.Refused(3, "disk", "show", "vol")
}

// Detach under load: it ends, the clients get errors, what was acknowledged is
// there after attaching again.
func TestDetachUnderLoad(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "64M")
	load := exec.Command("/usr/bin/python3", "-c", `
import nbd, sys, errno
hs = []
for i in range(4):
    h = nbd.NBD(); h.connect_uri(sys.argv[1]); hs.append(h)
acked = 0
print("ready", flush=True)
try:
    while True:
        n = acked + 1
        data = n.to_bytes(8, "little") * 8192
        for i, h in enumerate(hs):
            h.pwrite(data, i << 24)
        acked = n
except nbd.Error as e:
    print(acked, errno.errorcode.get(e.errnum, e.errnum), flush=True)
`, uri)
	out, err := load.StdoutPipe()
	if err == nil {
		err = load.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if _, err := out.Read(buf); err != nil {
		t.Fatal(err)
	}
	// Some load before the detach: the engine has written data.
	image := d.Image("vol")
	if !testbed.Poll(testbed.Deadline, func() bool { return !zeros(part(t, image, 16*mib, 4096)) }) {
		t.Fatal("the load does not write")
	}
	d.Must("disk", "detach", "vol")
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = load.Wait()
	acked, reason, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	t.Logf("acknowledged %s rounds, then %s", acked, reason)
	uri = d.Attach("vol")
	nbdsh(t, uri, `
for i in range(4):
    got = int.from_bytes(h.pread(8, i << 24), "little")
    assert got >= `+acked+`, (i, got)
`)
}
