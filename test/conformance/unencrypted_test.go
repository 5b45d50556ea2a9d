package conformance

import (
	"os"
	"testing"

	"sealdisk/test/testbed"
)

// An unencrypted disk is made on demand only, is a raw file, and stays so; the
// file beside the catalog can't turn one kind into the other.
func TestUnencryptedDisk(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("plain", "16M", "--unencrypted")
	in := randomFile(t, 16*mib, 4)
	testbed.Succeed(t, "nbdcopy", "--flush", in, uri)
	sameFiles(t, in, d.Image("plain"))
	d.Must("disk", "detach", "plain")

	d.Disk("vol", "16M")
	d.Must("disk", "detach", "vol")
	plain, encrypted := d.Image("plain"), d.Image("vol")
	// A raw file in the place of an encrypted disk is no disk.
	genuine := encrypted + ".genuine"
	copyFile(t, encrypted, genuine)
	copyFile(t, plain, encrypted)
	d.Refused(10, "disk", "attach", "vol")
	if err := os.Truncate(encrypted, 32*mib); err != nil {
		t.Fatal(err)
	}
	d.Refused(10, "disk", "attach", "vol")
	copyFile(t, genuine, encrypted)
	d.Attach("vol")
}
