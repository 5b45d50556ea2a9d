package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealdisk/test/testbed"
)

// raw is a connection of which the test writes every byte itself. Numbers and
// names are those of the NBD protocol document.
type raw struct {
	t *testing.T
	net.Conn
}

const (
	optionMagic  = 0x49484156454F5054
	replyMagic   = 0x3e889045565a9
	requestMagic = 0x25609513
	simpleMagic  = 0x67446698

	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optGo         = 7

	repAck          = 1
	repInfo         = 3
	repErrUnsup     = 1<<31 | 1
	repErrInvalid   = 1<<31 | 3
	repErrUnknown   = 1<<31 | 6
	repErrTooBig    = 1<<31 | 9
	clientFixed     = 1
	clientNoZeroes  = 2
	cmdRead         = 0
	cmdWrite        = 1
	cmdDisconnect   = 2
	transmissionLen = 28
)

// dialRaw connects and takes the greeting; the client's flags are not yet
// sent.
func dialRaw(t *testing.T, uri string) *raw {
	t.Helper()
	c, err := net.Dial("unix", testbed.Socket(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r := &raw{t, c}
	r.within(testbed.Deadline)
	greeting := r.read(18)
	if string(greeting[:16]) != "NBDMAGICIHAVEOPT" || greeting[17]&3 != 3 {
		t.Fatalf("greeting %x", greeting)
	}
	return r
}

// hello is dialRaw with the client's flags sent.
func hello(t *testing.T, uri string) *raw {
	t.Helper()
	r := dialRaw(t, uri)
	r.send(uint32(clientFixed | clientNoZeroes))
	return r
}

func (r *raw) within(d time.Duration) {
	if err := r.SetDeadline(time.Now().Add(d)); err != nil {
		r.t.Fatal(err)
	}
}

// send writes numbers big-endian, strings and bytes as they are.
func (r *raw) send(parts ...any) {
	r.t.Helper()
	if _, err := r.Write(pack(r.t, parts...)); err != nil {
		r.t.Fatal(err)
	}
}

func pack(t *testing.T, parts ...any) (b []byte) {
	for _, p := range parts {
		var err error
		if s, ok := p.(string); ok {
			b = append(b, s...)
		} else if b, err = binary.Append(b, binary.BigEndian, p); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (r *raw) read(n int) []byte {
	r.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		r.t.Fatalf("read of %d bytes: %v", n, err)
	}
	return b
}

// option sends an option and returns the type of the first reply that is not
// an information.
func (r *raw) option(opt uint32, data string) uint32 {
	r.t.Helper()
	r.send(uint64(optionMagic), opt, uint32(len(data)), data)
	return r.reply(opt)
}

func (r *raw) reply(opt uint32) uint32 {
	r.t.Helper()
	for {
		h := r.read(20)
		if binary.BigEndian.Uint64(h) != replyMagic || binary.BigEndian.Uint32(h[8:]) != opt {
			r.t.Fatalf("reply %x to option %d", h, opt)
		}
		kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if n > 1<<16 {
			r.t.Fatalf("reply of %d bytes", n)
		}
		r.read(int(n))
		if kind != repInfo && kind != 2 {
			return kind
		}
	}
}

func goData(name string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(name)))) + name + "\x00\x00"
}

// transmission brings the connection into the transmission phase.
func (r *raw) transmission(name string) {
	r.t.Helper()
	if got := r.option(optGo, goData(name)); got != repAck {
		r.t.Fatalf("GO %q: %#x", name, got)
	}
}

func (r *raw) request(flags, cmd uint16, cookie, off uint64, length uint32, payload string) {
	r.t.Helper()
	r.send(uint32(requestMagic), flags, cmd, cookie, off, length, payload)
}

func (r *raw) simpleReply(cookie uint64) uint32 {
	r.t.Helper()
	h := r.read(16)
	if binary.BigEndian.Uint32(h) != simpleMagic || binary.BigEndian.Uint64(h[8:]) != cookie {
		r.t.Fatalf("reply %x, want one to %#x", h, cookie)
	}
	return binary.BigEndian.Uint32(h[4:])
}

// closed waits for the server to hang up.
func (r *raw) closed(limit time.Duration) {
	r.t.Helper()
	r.within(limit)
	n, err := io.Copy(io.Discard, r)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		r.t.Errorf("the server did not hang up within %v (%v, %d bytes)", limit, err, n)
	}
}

// serves asserts that the disk still answers others.
func serves(t *testing.T, uri string) {
	t.Helper()
	r := hello(t, uri)
	r.transmission("")
	r.request(0, cmdRead, 7, 0, 512, "")
	if e := r.simpleReply(7); e != 0 {
		t.Errorf("read: error %d", e)
	}
	r.read(512)
	r.request(0, cmdDisconnect, 8, 0, 0, "")
	r.closed(testbed.Deadline)
}

// engineMemory is the engine's resident set in bytes.
func engineMemory(t *testing.T, d *testbed.Daemon) (rss int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Child("engine")))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &rss); err == nil {
			return rss << 10
		}
	}
	t.Fatalf("no VmRSS in\n%s", b)
	return 0
}
