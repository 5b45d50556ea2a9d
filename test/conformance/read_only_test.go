package conformance

import (
	"testing"

	"sealdisk/test/testbed"
)

// Attached read-only, a disk says so, refuses every change with EPERM, and its
// file stays as it was.
func TestReadOnlyAttach(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	nbdsh(t, uri, "h.pwrite(b'kept' * 1024, 0)\nh.flush()")
	d.Must("disk", "detach", "vol")
	before := digest(t, d.Image("vol"))
	uri = d.Attach("vol", "--read-only")
	nbdsh(t, uri, `
assert h.is_read_only()
lax()
failing(errno.EPERM, h.pwrite, b'x' * 512, 0)
failing(errno.EPERM, h.zero, 4096, 0)
failing(errno.EPERM, h.trim, 4096, 0)
assert h.pread(4096, 0) == b'kept' * 1024
h.shutdown()
`)
	d.Must("disk", "detach", "vol")
	if digest(t, d.Image("vol")) != before {
		t.Error("the file changed")
	}
	d.Attach("vol")
}
