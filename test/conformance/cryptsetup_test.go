package conformance

import (
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// cryptsetup reads the header, takes the right key and refuses a wrong one.
func TestCryptsetupKnowsTheKey(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "32M")
	image := d.Image("vol")
	dump := testbed.Succeed(t, "cryptsetup", "luksDump", image)
	for _, want := range []string{"Version:       \t2", "aes-xts-plain64", "sector: 4096", "sealdisk-kms", "sealdisk-holes", d.ID("vol")} {
		if !strings.Contains(dump, want) {
			t.Errorf("luksDump lacks %q:\n%s", want, dump)
		}
	}
	dk := d.DK("vol")
	open := func(key []byte) testbed.Result {
		return testbed.Exec(t, nil, "cryptsetup", "open", "--test-passphrase", "--key-size", "512", "--volume-key-file", keyFile(t, key), image)
	}
	if r := open(dk); r.Code != 0 {
		t.Errorf("the right key: %s", r)
	}
	wrong := append([]byte{}, dk...)
	wrong[63] ^= 1
	if r := open(wrong); r.Code == 0 {
		t.Error("a key with one bit changed is accepted")
	}
	// While holes may be in the data, nothing but sealdisk may add keys.
	r := testbed.Exec(t, nil, "cryptsetup", "luksAddKey", "-q", "--key-size", "512", "--volume-key-file", keyFile(t, dk), image, keyFile(t, []byte("passphrase")))
	if r.Code == 0 || !strings.Contains(r.Stderr+r.Stdout, "requirement") {
		t.Errorf("luksAddKey on a header with holes: %s", r)
	}
}

// luksDump works while the disk is attached, and attaching goes on meanwhile;
// what would change the header waits.
func TestLuksDumpWhileAttached(t *testing.T) {
	d := testbed.Start(t)
	d.Disk("vol", "8M")
	image := d.Image("vol")
	if r := testbed.Exec(t, nil, "timeout", "10", "cryptsetup", "luksDump", image); r.Code != 0 {
		t.Errorf("luksDump: %s", r)
	}
	before, _ := copies(t, image)
	r := testbed.Exec(t, nil, "timeout", "2", "cryptsetup", "config", "--label", "changed", image)
	if after, _ := copies(t, image); r.Code == 0 || string(after) != string(before) {
		t.Errorf("the header of an attached disk was changed: %s", r)
	}
}

// Finalize takes the requirement away, and the image is then whole LUKS2.
func TestFinalizeClearsTheRequirement(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "32M")
	in := randomFile(t, 5*mib, 9)
	testbed.Succeed(t, "nbdcopy", "--flush", in, uri)
	d.Must("disk", "detach", "vol")
	d.Must("disk", "finalize", "vol", "--yes")
	image := d.Image("vol")
	if dump := testbed.Succeed(t, "cryptsetup", "luksDump", image); strings.Contains(dump, "sealdisk-holes") {
		t.Errorf("the requirement is still there:\n%s", dump)
	}
	// No granule is a hole any more: dm-crypt would read noise from it.
	for off := int64(16 * mib); off < 48*mib; off += mib {
		chunk := part(t, image, off, mib)
		for i := 0; i < mib; i += 512 {
			if zeros(chunk[i : i+512]) {
				t.Fatalf("granule at %d is a hole", off+int64(i))
			}
		}
	}
	uri = d.Attach("vol")
	nbdsh(t, uri, "assert h.pread(1 << 20, 20 << 20) == bytes(1 << 20)\nh.trim(1 << 20, 20 << 20)\nh.zero(1 << 20, 21 << 20)\nh.flush()")
	if zeros(part(t, image, 16*mib+20*mib, 4096)) || zeros(part(t, image, 16*mib+21*mib, 4096)) {
		t.Error("a finalized disk was punched")
	}
	nbdsh(t, uri, "assert h.pread(1 << 20, 21 << 20) == bytes(1 << 20)")
	// An ordinary LUKS passphrase can be added now.
	d.Must("disk", "detach", "vol")
	testbed.Succeed(t, "cryptsetup", "luksAddKey", "-q", "--key-size", "512", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--volume-key-file", keyFile(t, d.DK("vol")), image, keyFile(t, []byte("passphrase")))
	d.Attach("vol")
}
