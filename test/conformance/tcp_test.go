package conformance

import (
	"net"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// TCP is off by default, serves on the loopback when asked, and nowhere else
// without TLS.
func TestTCPOnLoopbackOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()

	d := testbed.New(t)
	d.Flags = []string{"--nbd-listen", addr}
	d.Serve()
	d.Must("agency", "grant")
	d.Disk("vol", "16M")
	if size := strings.TrimSpace(testbed.Succeed(t, "nbdinfo", "--size", "nbd://"+addr+"/vol")); size != "16777216" {
		t.Errorf("size over TCP: %s", size)
	}
	in := randomFile(t, 16*mib, 6)
	testbed.Succeed(t, "nbdcopy", "--flush", in, "nbd://"+addr+"/vol")
	testbed.Succeed(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, "nbd://"+addr+"/vol")

	for _, open := range []string{"0.0.0.0:0", "[::]:0", ":0"} {
		other := testbed.New(t)
		other.Flags = []string{"--nbd-listen", open}
		if err := other.TryServe(); err == nil {
			t.Errorf("serves without TLS on %s", open)
		} else if !strings.Contains(err.Error(), "error: ") || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%s: the refusal does not say why: %v", open, err)
		}
	}
}
