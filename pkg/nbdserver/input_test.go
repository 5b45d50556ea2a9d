package nbdserver

import (
	"bytes"
	"io"
	"testing"
	"time"

	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// canned is a stream that gives its parts one after the other.
type canned struct {
	stream
	parts [][]byte
	err   error
}

func (s *canned) readv(bufs [][]byte, _ time.Duration) (int, error) {
	if len(s.parts) == 0 {
		return 0, s.err
	}
	n := 0
	for _, b := range bufs {
		k := copy(b, s.parts[0])
		n += k
		if s.parts[0] = s.parts[0][k:]; len(s.parts[0]) == 0 {
			s.parts = s.parts[1:]
			break
		}
	}
	return n, nil
}

// TestSlurp: what a client that is gone left behind is read to its end, in
// bounds.
func TestSlurp(t *testing.T) {
	all := pattern(100000, 1)
	for name, c := range map[string]struct {
		limit int
		err   error
		want  bool
	}{
		"fits":     {1 << 20, io.EOF, true},
		"too long": {50000, io.EOF, false},
		"broken":   {1 << 20, io.ErrClosedPipe, false},
	} {
		in := input{s: &canned{parts: [][]byte{all[:10], all[10:70000], all[70000:]}, err: c.err}, buf: make([]byte, 16)}
		if _, err := in.need(3); err != nil {
			t.Fatal(err)
		}
		in.skip(2)
		if got := in.slurp(c.limit); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if c.want && !bytes.Equal(in.buf[in.r:in.w], all[2:]) {
			t.Errorf("%s: not what was sent", name)
		}
		if in.w > 2*c.limit {
			t.Errorf("%s: %d bytes kept", name, in.w)
		}
	}
	// What was slurped is then read as if it came now, and ends.
	in := input{s: &canned{parts: [][]byte{all}, err: io.EOF}, buf: make([]byte, 16)}
	if !in.slurp(1 << 20) {
		t.Fatal("does not fit")
	}
	got := make([]byte, len(all))
	if err := in.readFull(got); err != nil || !bytes.Equal(got, all) {
		t.Errorf("read again: %v", err)
	}
	if _, err := in.need(1); err != io.ErrUnexpectedEOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestEndsInDisc(t *testing.T) {
	w := func(n int) []byte { return nbdtest.Request(nbd.CmdWrite, 0, 1, 0, uint32(n), make([]byte, n)) }
	rd := nbdtest.Request(nbd.CmdRead, 0, 1, 0, 1<<30, nil)
	disc := nbdtest.Request(nbd.CmdDisc, 0, 1, 0, 0, nil)
	bad := bytes.Clone(disc)
	bad[0]++
	inside := nbdtest.Request(nbd.CmdWrite, 0, 1, 0, uint32(len(disc)), disc) // looks like one in a payload
	for name, c := range map[string]struct {
		parts [][]byte
		skip  int64
		want  bool
	}{
		"nothing":            {nil, 0, false},
		"disc":               {[][]byte{disc}, 0, true},
		"requests and disc":  {[][]byte{w(100), rd, w(1), disc}, 0, true},
		"no disc":            {[][]byte{w(100), rd}, 0, false},
		"payload, then disc": {[][]byte{make([]byte, 77), disc}, 77, true},
		"payload is missing": {[][]byte{make([]byte, 77)}, 78, false},
		"cut in the payload": {[][]byte{w(100)[:50], disc}, 0, false},
		"cut in the header":  {[][]byte{rd, disc[:27]}, 0, false},
		"garbage":            {[][]byte{rd, bad}, 0, false},
		"disc in a payload":  {[][]byte{inside}, 0, false},
	} {
		if got := endsInDisc(bytes.Join(c.parts, nil), c.skip); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
