package nbdserver

import (
	"io"
	"testing"
	"time"

	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// exchange sends bytes and takes everything back until the server closes, which it
// must do once the client has said all.
func exchange(t *testing.T, r *rig, b []byte) []byte {
	t.Helper()
	c := r.dial()
	go func() {
		c.Write(b) // fails when the server has had enough
		c.CloseWrite()
	}()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	all, err := io.ReadAll(c)
	if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
		t.Fatal("the server neither replies nor closes")
	}
	c.Close()
	return all
}

// FuzzOptions sends whatever it likes after the greeting: the server never
// panics or hangs, answers in well-formed replies, and gives back what it used.
func FuzzOptions(f *testing.F) {
	hello := be.AppendUint32(nil, 3)
	for _, seed := range [][]byte{
		{},
		nbdtest.Option(nbd.OptList, nil),
		nbdtest.Option(nbd.OptExportName, []byte("disk")),
		nbdtest.Option(nbd.OptGo, nbdtest.InfoData("disk", 1, 2, 3)),
		nbdtest.Option(nbd.OptInfo, nbdtest.InfoData("nothing")),
		append(nbdtest.Option(nbd.OptStructuredReply, nil), nbdtest.Option(nbd.OptSetMetaContext, nbdtest.MetaData("disk", "base:allocation", "x"))...),
		append(nbdtest.Option(99, make([]byte, 5000)), nbdtest.Option(nbd.OptAbort, nil)...),
		nbdtest.Option(nbd.OptStartTLS, nil),
	} {
		f.Add(append(hello[:4:4], seed...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dev := blockdevtest.NewRAM(64*kib, nil)
		r := newRig(t, Config{}, dev)
		got := exchange(t, r, b)
		if len(got) < nbd.NewstyleHeaderSize {
			t.Fatalf("greeting % x", got)
		}
		for got = got[nbd.NewstyleHeaderSize:]; len(got) >= nbd.OptionReplyHeaderSize; {
			h := nbd.GetOptionReplyHeader(got)
			if h.ReplyMagic != nbd.MagicOptionReply {
				break // EXPORT_NAME or GO was chosen: FuzzRequests looks at what follows
			}
			if int(h.Length) > len(got)-nbd.OptionReplyHeaderSize {
				t.Fatalf("reply of %d bytes with %d left", h.Length, len(got))
			}
			got = got[nbd.OptionReplyHeaderSize+int(h.Length):]
		}
		r.stop()
	})
}

// FuzzRequests sends whatever it likes in the transmission.
func FuzzRequests(f *testing.F) {
	for _, s := range []*script{
		new(script).disc(),
		new(script).write(0, make([]byte, 512)).add(nbd.CmdRead, 0, 512, nil).disc(),
		new(script).add(nbd.CmdFlush, 0, 0, nil).add(nbd.CmdTrim, 0, 4096, nil).add(nbd.CmdWriteZeroes, 0, 4096, nil),
		new(script).add(nbd.CmdBlockStatus, 0, 64*kib, nil).add(nbd.CmdCache, 0, 64*kib, nil).disc(),
		new(script).add(nbd.CmdRead, 1<<63, 1<<31, nil).add(nbd.CmdWrite, 0, 1<<31, nil),
		new(script).add(77, 0, 0, nil).add(nbd.CmdRead, 64*kib-1, 2, nil).disc(),
	} {
		f.Add(s.b.Bytes(), true)
		f.Add(s.b.Bytes(), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, structured bool) {
		dev := blockdevtest.NewRAM(64*kib, nil)
		r := newRig(t, Config{MaxRequests: 4}, dev)
		hello := be.AppendUint32(nil, uint32(nbd.ClientFixedNewstyle|nbd.ClientNoZeroes))
		skip := nbd.NewstyleHeaderSize + nbd.OptionReplyHeaderSize*2 + nbd.InfoExportSize
		if structured {
			hello = append(hello, nbdtest.Option(nbd.OptStructuredReply, nil)...)
			hello = append(hello, nbdtest.Option(nbd.OptSetMetaContext, nbdtest.MetaData("disk", nbd.ContextAllocation))...)
			skip += nbd.OptionReplyHeaderSize*3 + nbd.ContextIDSize + len(nbd.ContextAllocation)
		}
		hello = append(hello, nbdtest.Option(nbd.OptGo, nbdtest.InfoData("disk"))...)
		got := exchange(t, r, append(hello, b...))
		if len(got) < skip {
			t.Fatalf("handshake: %d bytes", len(got))
		}
		checkReplies(t, got[skip:], requestsIn(b), structured)
		r.stop()
	})
}

// requestsIn lists the requests that a stream holds whole, up to DISC or what is none.
func requestsIn(b []byte) (all []nbd.RequestHeader) {
	for len(b) >= nbd.RequestHeaderSize {
		var h nbd.RequestHeader
		nbd.GetRequestHeader(b, &h)
		b = b[nbd.RequestHeaderSize:]
		if h.RequestMagic != nbd.MagicRequest || nbd.Command(h.Type) == nbd.CmdDisc {
			return all
		}
		if nbd.Command(h.Type) == nbd.CmdWrite {
			if int64(h.Length) > int64(len(b)) {
				return all
			}
			b = b[h.Length:]
		}
		all = append(all, h)
	}
	return all
}

// checkReplies checks that got is a run of replies, each to a request that was sent and
// not answered yet. The last may be cut: the client went away.
func checkReplies(t *testing.T, got []byte, sent []nbd.RequestHeader, structured bool) {
	t.Helper()
	cookies := map[uint64]bool{}
	for _, h := range sent {
		if cookies[h.Handle] {
			return // then nobody can tell which reply is whose
		}
		cookies[h.Handle] = true
	}
	for len(got) >= nbd.SimpleReplySize {
		var cookie uint64
		var size, read int // after the header; data if it is a READ
		head := nbd.SimpleReplySize
		wasSimple := be.Uint32(got) == nbd.MagicSimpleReply
		switch {
		case wasSimple:
			h := nbd.GetSimpleReply(got)
			cookie = h.Handle
			if h.Error == 0 {
				read = -1
			}
		case be.Uint32(got) == nbd.MagicStructuredReply && structured:
			if head = nbd.ChunkHeaderSize; len(got) < head {
				return
			}
			h := nbd.GetChunkHeader(got)
			cookie, size = h.Cookie, int(h.Length)
			if h.Flags != nbd.FlagDone {
				t.Fatalf("chunk flags %v", h.Flags)
			}
		default:
			t.Fatalf("reply magic %#x", be.Uint32(got))
		}
		found := -1
		for i, h := range sent {
			if h.Handle == cookie && !(wasSimple && structured && nbd.Command(h.Type) == nbd.CmdRead) {
				found = i
				break
			}
		}
		if found < 0 {
			t.Fatalf("reply to cookie %#x, which nobody sent", cookie)
		}
		if read < 0 && nbd.Command(sent[found].Type) == nbd.CmdRead {
			size = int(sent[found].Length)
		}
		sent = append(sent[:found:found], sent[found+1:]...)
		if size > len(got)-head {
			return
		}
		got = got[head+size:]
	}
}
