package conformance

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"sealdisk/test/testbed"
)

// Whatever a client says first, it gets a clear refusal, costs no memory, and
// the disk goes on serving others.
func TestHandshakeWithBadInput(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	before := engineMemory(t, d)
	for _, c := range []struct {
		name string
		play func(t *testing.T, r *raw)
	}{
		{"unknown client flags", func(t *testing.T, r *raw) {
			r.send(uint32(1 << 20))
			r.closed(testbed.Deadline)
		}},
		{"wrong option magic", func(t *testing.T, r *raw) {
			r.send(uint32(3), uint64(0x1122334455667788), uint32(optGo), uint32(0))
			r.closed(testbed.Deadline)
		}},
		{"unknown option, then a known one", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			if got := r.option(77, "something"); got != repErrUnsup {
				t.Errorf("reply %#x, want ERR_UNSUP", got)
			}
			if got := r.option(optList, ""); got != repAck {
				t.Errorf("LIST afterwards: %#x", got)
			}
			r.transmission("vol")
		}},
		{"option of 4 GiB", func(t *testing.T, r *raw) {
			r.send(uint32(3), uint64(optionMagic), uint32(optInfo), uint32(0xffffffff), strings.Repeat("x", 1<<16))
			r.closed(testbed.Deadline)
		}},
		{"EXPORT_NAME of 4 GiB", func(t *testing.T, r *raw) {
			r.send(uint32(3), uint64(optionMagic), uint32(optExportName), uint32(0xffffffff), "x")
			r.closed(testbed.Deadline)
		}},
		{"name of 5000 bytes", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			if got := r.option(optGo, goData(strings.Repeat("n", 5000))); got>>31 != 1 {
				t.Errorf("reply %#x, want an error", got)
			}
			r.transmission("vol")
		}},
		{"name longer than its option", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			data := goData("vol")
			if got := r.option(optGo, "\xff\xff\xff\xff"+data[4:]); got != repErrInvalid {
				t.Errorf("reply %#x, want ERR_INVALID", got)
			}
			r.transmission("vol")
		}},
		{"GO without data", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			if got := r.option(optGo, ""); got != repErrInvalid {
				t.Errorf("reply %#x, want ERR_INVALID", got)
			}
			r.transmission("vol")
		}},
		{"GO with more infos than sent", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			if got := r.option(optGo, "\x00\x00\x00\x03vol\xff\xff\x00\x03"); got != repErrInvalid {
				t.Errorf("reply %#x, want ERR_INVALID", got)
			}
			r.transmission("vol")
		}},
		{"LIST with data", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			if got := r.option(optList, "data"); got != repErrInvalid {
				t.Errorf("reply %#x, want ERR_INVALID", got)
			}
			r.transmission("vol")
		}},
		{"unknown export", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			if got := r.option(optGo, goData("other")); got != repErrUnknown {
				t.Errorf("reply %#x, want ERR_UNKNOWN", got)
			}
			r.transmission("vol")
		}},
		{"40 options", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			for range 40 {
				_, _ = r.Write(pack(t, uint64(optionMagic), uint32(optList), uint32(0)))
			}
			r.closed(testbed.Deadline)
		}},
		{"abort", func(t *testing.T, r *raw) {
			r.send(uint32(3))
			if got := r.option(optAbort, ""); got != repAck {
				t.Errorf("reply %#x, want ACK", got)
			}
			r.closed(testbed.Deadline)
		}},
		{"gone after half an option", func(t *testing.T, r *raw) {
			r.send(uint32(3), uint64(optionMagic), uint16(0))
			r.Close()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.play(t, dialRaw(t, uri))
			serves(t, uri)
		})
	}
	if after := engineMemory(t, d); after > before+64*mib {
		t.Errorf("the engine grew from %d to %d MiB", before/mib, after/mib)
	}
}

// Half a handshake and silence: the server hangs up after its deadline of 10 s.
func TestSilentHandshakeIsCut(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	silent := []*raw{dialRaw(t, uri), hello(t, uri), hello(t, uri)}
	silent[2].send(uint64(optionMagic), uint32(optGo), uint32(100), "half")
	began := time.Now()
	for _, r := range silent {
		r.closed(testbed.Deadline)
	}
	if took := time.Since(began); took < 5*time.Second || took > 20*time.Second {
		t.Errorf("cut after %v, want about 10 s", took)
	}
	serves(t, uri)
}

// EXPORT_NAME, the oldest way in: size, flags and 124 zeros unless NO_ZEROES.
func TestExportName(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	for _, c := range []struct {
		name  string
		flags uint32
		zeros int
	}{{"with zeros", clientFixed, 124}, {"without", clientFixed | clientNoZeroes, 0}} {
		t.Run(c.name, func(t *testing.T) {
			r := dialRaw(t, uri)
			r.send(c.flags, uint64(optionMagic), uint32(optExportName), uint32(3), "vol")
			h := r.read(10 + c.zeros)
			if size := binary.BigEndian.Uint64(h); size != 16*mib || h[9]&1 == 0 || !zeros(h[10:]) {
				t.Errorf("size %d, flags %x, rest %x", size, h[8:10], h[10:])
			}
			r.request(0, cmdRead, 0xdeadbeefcafef00d, 0, 512, "")
			if e := r.simpleReply(0xdeadbeefcafef00d); e != 0 {
				t.Errorf("read: error %d", e)
			}
			if !zeros(r.read(512)) {
				t.Error("a new disk does not read as zeros")
			}
		})
	}
}
