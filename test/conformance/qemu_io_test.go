package conformance

import (
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// qemu-io: writes with FUA, zeroes with and without unmap, discards, flushes, and
// reads back by pattern.
func TestQemuIO(t *testing.T) {
	d := testbed.Start(t)
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			d := d.In(t)
			uri := d.Disk("vol"+sector, "64M", "--sector-size", sector)
			args := []string{"qemu-io", "-f", "raw"}
			for _, c := range []string{
				"write -P 0xaa 0 1M", "write -f -P 0xbb 1M 1M", "flush",
				"read -P 0xaa 0 1M", "read -P 0xbb 1M 1M",
				"write -z 512k 64k", "read -P 0 512k 64k", "read -P 0xaa 0 512k",
				"write -z -u 1M 512k", "read -P 0 1M 512k", "read -P 0xbb 1536k 512k",
				"write -f -z 2M 1M", "read -P 0 2M 1M",
				"discard 0 256k", "read -P 0 0 256k", "read -P 0xaa 256k 256k",
				"write -P 0xcc 4001 777", "read -P 0xcc 4001 777", "read -P 0 0 4001",
				"writev -P 0xdd 8M 4k 8k 512", "read -P 0xdd 8M 12800",
				"aio_write -P 0xee 16M 2M", "aio_flush", "read -P 0xee 16M 2M",
				"flush",
			} {
				args = append(args, "-c", c)
			}
			out := testbed.Succeed(t, append(args, uri)...)
			if strings.Contains(out, "failed") || strings.Contains(out, "error") {
				t.Errorf("qemu-io:\n%s", out)
			}
			// Attached anew, all of it is still there.
			d.Must("disk", "detach", "vol"+sector)
			uri = d.Attach("vol" + sector)
			out = testbed.Succeed(t, "qemu-io", "-f", "raw", "-r",
				"-c", "read -P 0xbb 1536k 512k", "-c", "read -P 0xee 16M 2M", "-c", "read -P 0xcc 4001 777", "-c", "read -P 0 2M 1M", uri)
			if strings.Contains(out, "failed") {
				t.Errorf("after attaching again:\n%s", out)
			}
		})
	}
}
