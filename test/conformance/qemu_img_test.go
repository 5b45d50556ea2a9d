package conformance

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"sealdisk/test/testbed"
)

// qemu-img convert in and out, compare, map.
func TestQemuImg(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "64M")
	in := filepath.Join(t.TempDir(), "in.img")
	testbed.Succeed(t, "truncate", "-s", "64M", in)
	data := part(t, randomFile(t, 4*mib, 3), 0, 4*mib)
	edit(t, in, 10*mib, 4*mib, func(b []byte) { copy(b, data) })

	testbed.Succeed(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", in, uri)
	testbed.Succeed(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, uri)
	out := filepath.Join(t.TempDir(), "out.qcow2")
	testbed.Succeed(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", uri, out)
	testbed.Succeed(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", in, out)

	var extents []struct {
		Start, Length int64
		Zero, Data    bool
	}
	j := testbed.Succeed(t, "qemu-img", "map", "--output=json", "-f", "raw", uri)
	if err := json.Unmarshal([]byte(j), &extents); err != nil {
		t.Fatalf("%v\n%s", err, j)
	}
	var mapped int64
	for _, e := range extents {
		if e.Data {
			mapped += e.Length
		}
		if e.Data && (e.Start < 10*mib || e.Start+e.Length > 14*mib) {
			t.Errorf("extent %+v: nothing was written there", e)
		}
	}
	if mapped != 4*mib {
		t.Errorf("%d bytes are data, 4 MiB were written: %s", mapped, j)
	}

	// A difference of one byte is found.
	nbdsh(t, uri, "h.pwrite(b'!', 12 << 20)")
	if r := testbed.Exec(t, nil, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, uri); r.Code != 1 {
		t.Errorf("compare with one byte changed: %s", r)
	}
}
