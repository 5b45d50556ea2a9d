package nbdclient

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/nbd"
)

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// pair returns the two ends of a unix stream socket.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// fake is the server's end of a connection. What goes wrong at it shows as an
// error of the client.
type fake struct {
	net.Conn
}

func (f fake) bytes(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil
	}
	return b
}

// option reads one option; nil at the end.
func (f fake) option() (nbd.Option, []byte) {
	b := f.bytes(nbd.OptionHeaderSize)
	if b == nil {
		return 0, nil
	}
	h := nbd.GetOptionHeader(b)
	return nbd.Option(h.ID), f.bytes(int(h.Length))
}

func (f fake) answer(opt nbd.Option, rep nbd.OptionReply, data string) {
	f.Write(append(nbd.AppendOptionReply(nil, opt, rep, len(data)), data...))
}

func (f fake) greet(flags nbd.HandshakeFlags) {
	b := make([]byte, nbd.NewstyleHeaderSize)
	nbd.PutNewstyleHeader(b, nbd.NewstyleHeader{OldstyleMagic: nbd.MagicInit, OptionMagic: nbd.MagicOption, HandshakeFlags: uint16(flags)})
	f.Write(b)
	f.bytes(4)
}

const fakeSize = 1 << 30

// shake answers a whole handshake. Structured replies and base:allocation are
// granted if structured is set.
func (f fake) shake(structured bool) {
	f.greet(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes)
	for {
		switch opt, data := f.option(); {
		case data == nil && opt == 0:
			return
		case opt == nbd.OptGo:
			f.answer(opt, nbd.RepInfo, "\x00\x01more that nobody asked for")
			f.answer(opt, nbd.RepInfo, string(nbd.AppendInfoExport(nil, fakeSize, nbd.FlagHasFlags|nbd.FlagSendWriteZeroes)))
			f.answer(opt, nbd.RepAck, "")
			return
		case !structured:
			f.answer(opt, nbd.RepErrUnsup, "no")
		case opt == nbd.OptSetMetaContext:
			f.answer(opt, nbd.RepMetaContext, "\x00\x00\x00\x01"+nbd.ContextAllocation)
			f.answer(opt, nbd.RepAck, "")
		default:
			f.answer(opt, nbd.RepAck, "")
		}
	}
}

// request reads one request with its payload; false at the end.
func (f fake) request() (h nbd.RequestHeader, data []byte, ok bool) {
	b := f.bytes(nbd.RequestHeaderSize)
	if b == nil {
		return h, nil, false
	}
	nbd.GetRequestHeader(b, &h)
	if nbd.Command(h.Type) == nbd.CmdWrite {
		data = f.bytes(int(h.Length))
	}
	return h, data, true
}

func (f fake) simple(cookie uint64, e nbd.Errno, data []byte) {
	b := make([]byte, nbd.SimpleReplySize)
	nbd.PutSimpleReply(b, cookie, e)
	f.Write(append(b, data...))
}

func (f fake) chunk(flags nbd.ReplyFlags, kind nbd.ChunkType, cookie uint64, data []byte) {
	b := make([]byte, nbd.ChunkHeaderSize)
	nbd.PutChunkHeader(b, flags, kind, cookie, uint32(len(data)))
	f.Write(append(b, data...))
}

// dial connects a client to a server that does what script says after the handshake.
func dial(t testing.TB, o Options, script func(f fake)) *Conn {
	t.Helper()
	client, server := pair(t)
	var done sync.WaitGroup
	done.Go(func() {
		defer server.Close()
		f := fake{server}
		f.shake(o.Allocation)
		script(f)
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := New(ctx, client, "data", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Abort()
		c.Close()
		done.Wait()
	})
	// A client that waits for ever fails by this.
	stop := time.AfterFunc(patience, c.Abort)
	t.Cleanup(func() { stop.Stop() })
	return c
}

// pattern is what a fake disk holds at off.
func pattern(p []byte, off uint64) {
	for i := range p {
		at := off + uint64(i)
		p[i] = byte(at) ^ byte(at>>8) ^ byte(at>>16)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
