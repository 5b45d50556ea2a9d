package nbdclient

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"sealdisk/pkg/nbd"
)

// TestBadReplies: a reply that breaks the protocol ends the connection with an error that says how, and
// writes nothing outside the request's buffer.
func TestBadReplies(t *testing.T) {
	be64 := func(v uint64, rest ...byte) []byte { return append(be.AppendUint64(nil, v), rest...) }
	status := func(pairs ...uint32) []byte {
		b := []byte{0, 0, 0, 1}
		for _, v := range pairs {
			b = be.AppendUint32(b, v)
		}
		return b
	}
	some := make([]byte, 4096)
	for name, c := range map[string]struct {
		structured, extents bool
		reply               func(f fake, h nbd.RequestHeader)
		words               string
	}{
		"magic":                  {false, false, func(f fake, h nbd.RequestHeader) { f.Write(some) }, "begins with 0x0"},
		"unknown cookie":         {false, false, func(f fake, h nbd.RequestHeader) { f.simple(h.Handle+1, 0, some) }, "not under way"},
		"cookie of no tag":       {false, false, func(f fake, h nbd.RequestHeader) { f.simple(math.MaxUint64, 0, some) }, "not under way"},
		"cookie of another time": {false, false, func(f fake, h nbd.RequestHeader) { f.simple(h.Handle+1<<16, 0, some) }, "not under way"},
		"answered twice":         {false, false, func(f fake, h nbd.RequestHeader) { f.simple(h.Handle, 0, some); f.simple(h.Handle, 0, some) }, "not under way"},
		"not asked for":          {false, false, func(f fake, h nbd.RequestHeader) { f.chunk(nbd.FlagDone, nbd.ChunkNone, h.Handle, nil) }, "begins with"},
		"cut head":               {false, false, func(f fake, h nbd.RequestHeader) { f.Write(be.AppendUint32(nil, nbd.MagicSimpleReply)) }, "closed"},
		"cut data":               {false, false, func(f fake, h nbd.RequestHeader) { f.simple(h.Handle, 0, some[:4095]) }, "closed"},
		"simple READ":            {true, false, func(f fake, h nbd.RequestHeader) { f.simple(h.Handle, 0, some) }, "simple reply to READ"},
		"simple status":          {true, true, func(f fake, h nbd.RequestHeader) { f.simple(h.Handle, 0, nil) }, "simple reply to BLOCK_STATUS"},
		"no data":                {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(nbd.FlagDone, nbd.ChunkNone, h.Handle, nil) }, "0 bytes in reply to READ"},
		"too little data":        {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(512, some[1:]...)) }, "4095 bytes in reply"},
		"too much data": {true, false, func(f fake, h nbd.RequestHeader) {
			f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(512, append(some, 0)...))
		}, "4105 bytes"},
		"data before": {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(511, some...)) }, "at 511"},
		"data behind": {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(513, some...)) }, "at 513"},
		"data far behind": {true, false, func(f fake, h nbd.RequestHeader) {
			f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(math.MaxUint64, some...))
		}, "in reply to READ"},
		"data twice": {true, false, func(f fake, h nbd.RequestHeader) {
			f.chunk(0, nbd.ChunkOffsetData, h.Handle, be64(512, some...))
			f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(512, some...))
		}, "4096 bytes at 512"},
		"large hole": {true, false, func(f fake, h nbd.RequestHeader) {
			f.chunk(1, nbd.ChunkOffsetHole, h.Handle, be64(512, 255, 255, 255, 255))
		}, "4294967295 bytes"},
		"short hole":       {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkOffsetHole, h.Handle, be64(512)) }, "OFFSET_HOLE of 8 bytes"},
		"empty data":       {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(512)) }, "OFFSET_DATA of 8 bytes"},
		"short error":      {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkError, h.Handle, some[:5]) }, "ERROR of 5 bytes"},
		"endless error":    {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkError, h.Handle, make([]byte, 1<<16)) }, "ERROR of 65536"},
		"error of nothing": {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkError, h.Handle, some[:6]) }, "without an error"},
		"status of READ":   {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkBlockStatus, h.Handle, status(4096, 0)) }, "BLOCK_STATUS in reply to READ"},
		"data of status":   {true, true, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(512, 1)) }, "OFFSET_DATA in reply"},
		"unknown chunk":    {true, false, func(f fake, h nbd.RequestHeader) { f.chunk(1, 77, h.Handle, nil) }, "unknown 0x4d"},
		"empty extent":     {true, true, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkBlockStatus, h.Handle, status(512, 0, 0, 0)) }, "empty extents"},
		"extents behind":   {true, true, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkBlockStatus, h.Handle, status(4096, 0, 512, 0)) }, "too many"},
		"odd extents":      {true, true, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkBlockStatus, h.Handle, status(512, 0, 1)) }, "BLOCK_STATUS chunk of 16 bytes"},
		"no extents":       {true, true, func(f fake, h nbd.RequestHeader) { f.chunk(1, nbd.ChunkNone, h.Handle, nil) }, "no extents"},
		"status twice": {true, true, func(f fake, h nbd.RequestHeader) {
			f.chunk(0, nbd.ChunkBlockStatus, h.Handle, status(512, 0))
			f.chunk(1, nbd.ChunkBlockStatus, h.Handle, status(512, 0))
		}, "BLOCK_STATUS in reply"},
		"more after the last": {true, false, func(f fake, h nbd.RequestHeader) {
			f.chunk(1, nbd.ChunkOffsetData, h.Handle, be64(512, some...))
			f.chunk(1, nbd.ChunkNone, h.Handle, nil)
		}, "not under way"},
	} {
		t.Run(name, func(t *testing.T) {
			cl := dial(t, Options{Depth: 2, Allocation: c.structured}, func(f fake) {
				h, _, _ := f.request()
				if c.reply(f, h); strings.Contains(c.words, "closed") {
					return
				}
				f.request()
			})
			buf := make([]byte, 3*4096)
			if c.extents {
				cl.BlockStatus(0, 512, 4096, &[]Extent{})
			} else {
				cl.Read(0, buf[4096:8192], 512)
			}
			r, err := cl.Next()
			if err == nil && r.Errno == 0 { // the second reply is the bad one
				cl.Read(1, buf[4096:8192], 512)
				_, err = cl.Next()
			}
			if !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v, want an error with %q", err, c.words)
			}
			for i, b := range buf {
				if b != 0 && (i < 4096 || i >= 8192) {
					t.Fatalf("byte %d outside the buffer is %#x", i, b)
				}
			}
		})
	}
}

// TestReplyBeforeTheRequest: a server that answers what it has not been asked yet.
func TestReplyBeforeTheRequest(t *testing.T) {
	c := dial(t, Options{Depth: 2}, func(f fake) {
		h, _, _ := f.request()
		f.simple(h.Handle+1<<16+1, 0, nil) // the next one, of which the socket can't hold all
		f.bytes(1 << 30)
	})
	c.Read(0, make([]byte, 512), 0)
	c.Write(1, make([]byte, nbd.MaxPayload), 0)
	if _, err := c.Next(); !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "not under way") {
		t.Errorf("got %v", err)
	}
}

func TestHandshakes(t *testing.T) {
	for name, c := range map[string]struct {
		script func(f fake)
		want   error // ErrProtocol, ErrClosed, or the refusal
		words  string
	}{
		"no greeting":  {func(f fake) {}, ErrClosed, ""},
		"another's":    {func(f fake) { f.Write([]byte("SSH-2.0-OpenSSH_9.2p1 and more")) }, ErrProtocol, "greeting"},
		"not fixed":    {func(f fake) { f.greet(0) }, ErrProtocol, "greeting"},
		"unknown name": {func(f fake) { f.greet(1); o, _ := f.option(); f.answer(o, nbd.RepErrUnknown, "no \x1b[31m disk") }, nil, `GO: ERR_UNKNOWN "no \x1b[31m disk"`},
		"TLS":          {func(f fake) { f.greet(1); o, _ := f.option(); f.answer(o, nbd.RepErrTLSReqd, "") }, nil, "ERR_TLS_REQD"},
		"other option": {func(f fake) { f.greet(1); f.option(); f.answer(nbd.OptList, nbd.RepAck, "") }, ErrProtocol, "to GO"},
		"no size":      {func(f fake) { f.greet(1); o, _ := f.option(); f.answer(o, nbd.RepAck, "") }, ErrProtocol, "without INFO_EXPORT"},
		"short info":   {func(f fake) { f.greet(1); o, _ := f.option(); f.answer(o, nbd.RepInfo, "\x00\x00") }, ErrProtocol, "INFO_EXPORT"},
		"huge size": {func(f fake) {
			f.greet(1)
			o, _ := f.option()
			f.answer(o, nbd.RepInfo, string(nbd.AppendInfoExport(nil, 1<<63, 0)))
		}, ErrProtocol, "INFO_EXPORT"},
		"long reply": {func(f fake) { f.greet(1); o, _ := f.option(); f.answer(o, nbd.RepInfo, strings.Repeat("x", 1<<17)) }, ErrProtocol, "reply"},
		"endless": {func(f fake) {
			f.greet(1)
			o, _ := f.option()
			for range maxOptionReplies + 1 {
				f.answer(o, nbd.RepInfo, "\x00\x01")
			}
		}, ErrProtocol, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t)
			go func() { c.script(fake{server}); server.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := New(ctx, client, "data", Options{Depth: 1})
			var refused *OptionError
			if c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &refused) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.words)
			}
		})
	}
	client, _ := pair(t)
	if _, err := New(t.Context(), client, strings.Repeat("x", nbd.MaxString+1), Options{Depth: 1}); err == nil {
		t.Error("a name longer than NBD's")
	}
}

// TestRefusedAllocation: a server without structured replies is used without.
func TestRefusedAllocation(t *testing.T) {
	client, server := pair(t)
	go func() {
		f := fake{server}
		f.shake(false)
		h, _, _ := f.request()
		f.simple(h.Handle, 0, make([]byte, h.Length))
	}()
	c, err := New(t.Context(), client, "data", Options{Depth: 1, Allocation: true})
	if err != nil || c.Allocation() {
		t.Fatalf("%v, allocation %v", err, c.Allocation())
	}
	c.Read(0, make([]byte, 512), 0)
	if r, err := c.Next(); err != nil || r.Errno != 0 {
		t.Error(r, err)
	}
	c.Close()
}

// FuzzReplies: whatever a server sends, the client neither panics nor hangs, and what it
// gives out as read was received.
func FuzzReplies(f *testing.F) {
	const cookie = 1 << 16 // of the first request
	simple := make([]byte, nbd.SimpleReplySize)
	nbd.PutSimpleReply(simple, cookie, 0)
	f.Add(false, false, append(simple, make([]byte, 100)...))
	data := make([]byte, 64)
	f.Add(true, false, append(data[:nbd.PutDataChunk(data, cookie, 512, 100)], make([]byte, 100)...))
	f.Add(true, false, data[:nbd.PutErrorChunk(data, cookie, nbd.EIO, "words")])
	status := make([]byte, nbd.ChunkHeaderSize, 64)
	nbd.PutChunkHeader(status, nbd.FlagDone, nbd.ChunkBlockStatus, cookie, 12)
	f.Add(true, true, append(status, 0, 0, 0, 1, 0, 0, 0, 100, 0, 0, 0, 3))
	f.Fuzz(func(t *testing.T, structured, extents bool, stream []byte) {
		c := dial(t, Options{Depth: 2, Allocation: structured}, func(f fake) {
			f.request()
			f.request()
			f.Write(stream)
		})
		buf := make([]byte, 100)
		got := make([]Extent, 0, 4)
		if structured && extents {
			c.BlockStatus(0, 512, len(buf), &got)
		} else {
			c.Read(0, buf, 512)
		}
		c.Write(1, make([]byte, 512), 0)
		var err error
		for err == nil && c.Under() > 0 {
			_, err = c.Next()
		}
		if err != nil && !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		for _, e := range got {
			if e.Length == 0 {
				t.Error("an empty extent")
			}
		}
	})
}
