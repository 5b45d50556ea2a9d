package conformance

import (
	"fmt"
	"path/filepath"
	"testing"

	"sealdisk/test/testbed"
)

// nbdcopy in and out, with one connection and with four: the same bytes, and
// none of them in the backing file.
func TestNbdcopyBothWays(t *testing.T) {
	d := testbed.Start(t)
	for _, connections := range []int{1, 4} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			d := d.In(t)
			name := fmt.Sprintf("vol%d", connections)
			uri := d.Disk(name, "64M")
			in := randomFile(t, 64*mib, byte(connections))
			out := filepath.Join(t.TempDir(), "out")
			flag := fmt.Sprintf("--connections=%d", connections)
			testbed.Succeed(t, "nbdcopy", flag, "--flush", in, uri)
			testbed.Succeed(t, "nbdcopy", flag, uri, out)
			sameFiles(t, in, out)
			plain, stored := part(t, in, 8*mib, mib), part(t, d.Image(name), 16*mib+8*mib, mib)
			if string(plain) == string(stored) {
				t.Error("the backing file holds plaintext")
			}
		})
	}
}

// From disk to disk: the ciphertexts differ, for each disk has its own key.
func TestNbdcopyDiskToDisk(t *testing.T) {
	d := testbed.Start(t)
	a, b := d.Disk("a", "32M"), d.Disk("b", "32M")
	in := randomFile(t, 32*mib, 1)
	out := filepath.Join(t.TempDir(), "out")
	testbed.Succeed(t, "nbdcopy", "--flush", in, a)
	testbed.Succeed(t, "nbdcopy", "--flush", "--connections=4", a, b)
	testbed.Succeed(t, "nbdcopy", b, out)
	sameFiles(t, in, out)
	if string(part(t, d.Image("a"), 16*mib, mib)) == string(part(t, d.Image("b"), 16*mib, mib)) {
		t.Error("two disks store the same ciphertext")
	}
}
