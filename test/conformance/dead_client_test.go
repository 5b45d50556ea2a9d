package conformance

import (
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// Clients that die or misbehave in the middle of a request harm only
// themselves.
func TestClientsThatDie(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "64M")
	for _, c := range []struct {
		name string
		play func(t *testing.T, r *raw)
	}{
		{"unknown command", func(t *testing.T, r *raw) {
			r.request(0, 99, 5, 0, 512, "")
			if e := r.simpleReply(5); e != 22 {
				t.Errorf("error %d, want EINVAL", e)
			}
			r.request(0, cmdRead, 6, 0, 512, "")
			if e := r.simpleReply(6); e != 0 {
				t.Errorf("a read afterwards: error %d", e)
			}
			r.read(512)
		}},
		{"wrong request magic", func(t *testing.T, r *raw) {
			r.send(uint32(0x12345678), strings.Repeat("\x00", transmissionLen-4))
			r.closed(testbed.Deadline)
		}},
		{"dies in the middle of a write", func(t *testing.T, r *raw) {
			r.request(0, cmdWrite, 1, 1<<20, 1<<20, strings.Repeat("w", 1<<19))
			r.Close()
		}},
		{"dies with replies under way", func(t *testing.T, r *raw) {
			for i := range uint64(16) {
				r.request(0, cmdRead, i, 0, 1<<20, "")
			}
			r.read(100)
			r.Close()
		}},
		{"dies in the middle of a header", func(t *testing.T, r *raw) {
			r.send(uint32(requestMagic), uint16(0))
			r.Close()
		}},
		{"disconnects with requests outstanding", func(t *testing.T, r *raw) {
			for i := range uint64(8) {
				r.request(0, cmdWrite, i, 8<<20+i*4096, 4096, strings.Repeat("d", 4096))
			}
			r.request(0, cmdDisconnect, 99, 0, 0, "")
			for range 8 {
				r.read(16)
			}
			r.closed(testbed.Deadline)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := hello(t, uri)
			r.transmission("vol")
			c.play(t, r)
			serves(t, uri)
		})
	}
	// What was acknowledged is there; half a write has not landed.
	nbdsh(t, uri, `
assert h.pread(32768, 8 << 20) == b'd' * 32768
assert h.pread(1 << 20, 1 << 20) == bytes(1 << 20)
`)
}

// A client that sends reads and never takes the replies does not stop others.
func TestClientThatNeverReads(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "64M")
	deaf := hello(t, uri)
	deaf.transmission("vol")
	for i := range uint64(64) {
		deaf.request(0, cmdRead, i, 0, 1<<20, "")
	}
	for range 20 {
		serves(t, uri)
	}
	if rss := engineMemory(t, d); rss > 512*mib {
		t.Errorf("the engine holds %d MiB for a client that does not read", rss/mib)
	}
}
