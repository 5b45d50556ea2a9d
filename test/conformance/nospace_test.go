package conformance

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// The storage fills up in the middle: ENOSPC for what has no place, the rest
// works, and space that comes back is used.
func TestNoSpaceInTheMiddle(t *testing.T) {
	d := testbed.New(t)
	if err := os.Mkdir(d.State, 0o700); err != nil {
		t.Fatal(err)
	}
	// The state lies on a file system of 24 MiB that only the daemon sees.
	d.Prefix = []string{"unshare", "--mount", "sh", "-c",
		`mount -t tmpfs -o size=24m,mode=0700 none "$0" && exec "$@"`, d.State}
	d.Serve()
	d.Must("agency", "grant")
	uri := d.Disk("vol", "64M")
	nbdsh(t, uri, `
full = None
for i in range(64):
    try:
        h.pwrite(bytes([i + 1]) * (1 << 20), i << 20)
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        full = i
        break
assert full and full > 4, "no ENOSPC: %s" % full
print("full after %d MiB" % full)

# What was written is all there, and can be overwritten in place and flushed.
for i in range(full):
    assert h.pread(1 << 20, i << 20) == bytes([i + 1]) * (1 << 20), i
h.pwrite(b'new' * 1000, 0)
assert h.pread(3000, 0) == b'new' * 1000
h.flush()

# The rest still has no place, on this connection and on others.
failing(errno.ENOSPC, h.pwrite, b'x' * (1 << 20), 60 << 20)
assert h.pread(4096, 61 << 20) == bytes(4096)

# Trimming gives space back.
h.trim(4 << 20, 1 << 20)
h.pwrite(b'y' * (1 << 20), 61 << 20)
assert h.pread(1 << 20, 61 << 20) == b'y' * (1 << 20)
h.flush()
h.shutdown()
`)
	serves(t, uri)
	d.Must("disk", "detach", "vol")
	uri = d.Attach("vol")
	nbdsh(t, uri, "assert h.pread(3000, 0) == b'new' * 1000\nassert h.pread(1 << 20, 61 << 20) == b'y' * (1 << 20)\n")
}

// A disk that can't have its space reserved is no disk, keeps the reason, and
// can be deleted.
func TestPreallocateWithoutSpace(t *testing.T) {
	d := testbed.New(t)
	if err := os.Mkdir(d.State, 0o700); err != nil {
		t.Fatal(err)
	}
	d.Prefix = []string{"unshare", "--mount", "sh", "-c",
		`mount -t tmpfs -o size=24m,mode=0700 none "$0" && exec "$@"`, d.State}
	d.Serve()
	d.Must("agency", "grant")
	d.Refused(9, "disk", "create", "vol", "--size", "64M", "--preallocate")
	if s := d.Show("vol"); s["status"] != "error" || !strings.Contains(fmt.Sprint(s), "space") {
		t.Errorf("the disk is %v, want error with the reason: %v", s["status"], s)
	}
	d.Refused(4, "disk", "attach", "vol")
	d.Must("disk", "delete", "vol", "--yes")
	d.Must("disk", "create", "vol", "--size", "64M")
}
