package nbdclient

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sealdisk/pkg/nbd"
)

// disk answers requests in batches whose replies come in any order, as a
// server with workers does. With a batch of 1 it reads nothing until a reply is sent.
func disk(structured bool, batch int) func(fake) {
	return func(f fake) {
		rng := rand.New(rand.NewPCG(3, 4))
		type call struct {
			h    nbd.RequestHeader
			data []byte
		}
		written := map[uint64][]byte{}
		var waiting []call
		for {
			h, data, ok := f.request()
			if !ok || nbd.Command(h.Type) == nbd.CmdDisc {
				return
			}
			if waiting = append(waiting, call{h, data}); len(waiting) < batch {
				continue
			}
			rng.Shuffle(len(waiting), func(i, j int) { waiting[i], waiting[j] = waiting[j], waiting[i] })
			for _, w := range waiting {
				switch nbd.Command(w.h.Type) {
				case nbd.CmdRead:
					p := make([]byte, w.h.Length)
					if old := written[w.h.Offset]; old != nil {
						copy(p, old)
					} else {
						pattern(p, w.h.Offset)
					}
					f.read(structured, w.h, p)
				case nbd.CmdWrite:
					written[w.h.Offset] = w.data
					f.simple(w.h.Handle, 0, nil)
				default:
					f.simple(w.h.Handle, 0, nil)
				}
			}
			waiting = waiting[:0]
		}
	}
}

// read sends the data of a READ, in several chunks where it may.
func (f fake) read(structured bool, h nbd.RequestHeader, p []byte) {
	if !structured {
		f.simple(h.Handle, 0, p)
		return
	}
	cut := len(p) / 3
	f.chunk(0, nbd.ChunkOffsetData, h.Handle, append(be.AppendUint64(nil, h.Offset+uint64(cut)), p[cut:]...))
	if cut > 0 {
		f.chunk(0, nbd.ChunkOffsetData, h.Handle, append(be.AppendUint64(nil, h.Offset), p[:cut]...))
	}
	f.chunk(nbd.FlagDone, nbd.ChunkNone, h.Handle, nil)
}

// TestManyUnderWay: each reply reaches the buffer of its own request, whatever the sizes and the order.
func TestManyUnderWay(t *testing.T) {
	for name, structured := range map[string]bool{"simple replies": false, "structured replies": true} {
		t.Run(name, func(t *testing.T) {
			const depth, total = 12, 600
			c := dial(t, Options{Depth: depth, Allocation: structured}, disk(structured, 4))
			if c.Size() != fakeSize || c.Flags()&nbd.FlagSendWriteZeroes == 0 || c.Allocation() != structured {
				t.Fatalf("size %d, flags %v, allocation %v", c.Size(), c.Flags(), c.Allocation())
			}
			rng := rand.New(rand.NewPCG(1, 2))
			offs := make([]uint64, depth)
			bufs := make([][]byte, depth)
			submit := func(tag int) {
				// From below the directSize to more than a socket holds.
				n := 1 + rng.IntN([]int{64, 4096, 100_000, 700_000}[rng.IntN(4)])
				offs[tag], bufs[tag] = rng.Uint64N(fakeSize-1<<20), make([]byte, n)
				c.Read(tag, bufs[tag], int64(offs[tag]))
			}
			for tag := range depth {
				submit(tag)
			}
			for done := 0; done < total; done++ {
				r, err := c.Next()
				if err != nil || r.Errno != 0 {
					t.Fatal(r, err)
				}
				want := make([]byte, len(bufs[r.Tag]))
				if pattern(want, offs[r.Tag]); !bytes.Equal(want, bufs[r.Tag]) {
					t.Fatalf("request %d: %d bytes at %d are not its own", done, len(want), offs[r.Tag])
				}
				submit(r.Tag)
			}
			if c.Under() != depth {
				t.Errorf("%d under way", c.Under())
			}
		})
	}
}

// TestWritesAndReadsTogether: more is written than the sockets hold, behind large reads whose
// replies the server sends before it reads on; neither side may wait for the other for ever.
func TestWritesAndReadsTogether(t *testing.T) {
	for name, batch := range map[string]int{"in turn": 1, "together": 4} {
		t.Run(name, func(t *testing.T) {
			const n = 3 << 20
			c := dial(t, Options{Depth: 4}, disk(false, batch))
			bufs := [4][]byte{make([]byte, n), make([]byte, n), make([]byte, n), make([]byte, n)}
			all := func() {
				for range 4 {
					if r, err := c.Next(); err != nil || r.Errno != 0 {
						t.Fatal(r, err)
					}
				}
			}
			for i := range 2 {
				c.Read(i+2, bufs[i+2], int64(100*n+i))
				pattern(bufs[i], uint64(i+77))
				c.Write(i, bufs[i], int64(i*n))
			}
			all()
			for i := range 2 {
				c.Read(i, bufs[2+i], int64(i*n))
				c.WriteZeroes(2+i, int64(50*n+i), 4096)
			}
			all()
			if !bytes.Equal(bufs[0], bufs[2]) || !bytes.Equal(bufs[1], bufs[3]) {
				t.Error("what was written is not what is read")
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	for name, structured := range map[string]bool{"simple replies": false, "structured replies": true} {
		t.Run(name, func(t *testing.T) {
			want := []nbd.Errno{nbd.EIO, nbd.ENOSPC, 0, nbd.ESHUTDOWN, 0}
			c := dial(t, Options{Depth: 1, Allocation: structured}, func(f fake) {
				for _, e := range want {
					h, _, _ := f.request()
					switch {
					case e == 0:
						f.read(structured, h, make([]byte, h.Length))
					case structured:
						f.chunk(0, nbd.ChunkOffsetData, h.Handle, append(be.AppendUint64(nil, h.Offset), "part"...))
						b := make([]byte, 64)
						f.Write(b[:nbd.PutErrorChunk(b, h.Handle, e, "words")])
					default:
						f.simple(h.Handle, e, nil)
					}
				}
				f.request()
			})
			for i, e := range want {
				c.Read(0, make([]byte, 4096), 0)
				if r, err := c.Next(); err != nil || r.Errno != e {
					t.Fatalf("request %d: %v, %v, want %v", i, r.Errno, err, e)
				}
			}
		})
	}
}

func TestBlockStatus(t *testing.T) {
	descriptors := func(f fake, n int) {
		h, _, _ := f.request()
		data := []byte{0, 0, 0, 1}
		for i := range n {
			data = be.AppendUint32(be.AppendUint32(data, 512), uint32(i%4))
		}
		f.chunk(nbd.FlagDone, nbd.ChunkBlockStatus, h.Handle, data)
	}
	const many = 20_000 // more than the input buffer holds
	c := dial(t, Options{Depth: 1, Allocation: true}, func(f fake) {
		descriptors(f, 3)
		descriptors(f, many)
		h, _, _ := f.request()
		data := make([]byte, h.Length)
		data[h.Length-1] = 9
		f.chunk(0, nbd.ChunkOffsetData, h.Handle, append(be.AppendUint64(nil, h.Offset+4096), data[4096:]...))
		f.chunk(nbd.FlagDone, nbd.ChunkOffsetHole, h.Handle, be.AppendUint32(be.AppendUint64(nil, h.Offset), 4096))
		f.request()
	})
	got := make([]Extent, 0, 100)
	for _, n := range []int{3, 100} {
		got = got[:0]
		c.BlockStatus(0, 0, 512*many, &got)
		if r, err := c.Next(); err != nil || r.Errno != 0 || len(got) != n || got[2] != (Extent{512, 2}) {
			t.Fatalf("%v %v: %d extents %v", r, err, len(got), got)
		}
	}
	p := bytes.Repeat([]byte{1}, 10_000)
	c.Read(0, p, 512)
	if r, err := c.Next(); err != nil || r.Errno != 0 || len(bytes.Trim(p, "\x00")) != 1 || p[9999] != 9 {
		t.Fatalf("a READ with a hole: %v, %v", r, err)
	}
}

// TestAbortWakes: a client that waits for a silent server is let go.
func TestAbortWakes(t *testing.T) {
	asked := make(chan struct{})
	c := dial(t, Options{Depth: 2}, func(f fake) {
		f.request()
		close(asked)
		f.request() // until the client is gone
	})
	c.Read(0, make([]byte, 512), 0)
	go func() {
		<-asked
		c.Abort()
	}()
	_, err := c.Next()
	wantError(t, err, ErrClosed)
	c.Read(1, make([]byte, 512), 0)
	_, again := c.Next()
	wantError(t, again, ErrClosed)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c.Abort() // does no harm afterwards
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestCancelledHandshake(t *testing.T) {
	client, _ := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	stop := time.AfterFunc(10*time.Millisecond, cancel)
	defer stop.Stop()
	_, err := New(ctx, client, "data", Options{Depth: 1})
	wantError(t, err, context.Canceled)
	_, err = Dial(t.Context(), filepath.Join(t.TempDir(), "none"), "", Options{Depth: 1})
	if err == nil {
		t.Error("connected to nothing")
	}
}

func TestMisuseIsTold(t *testing.T) {
	c := dial(t, Options{Depth: 2}, func(f fake) { f.request() })
	c.Read(0, make([]byte, 512), 0)
	for name, misuse := range map[string]func(){
		"tag under way":   func() { c.Read(0, make([]byte, 512), 0) },
		"no such tag":     func() { c.Read(2, make([]byte, 512), 0) },
		"payload":         func() { c.Read(1, make([]byte, nbd.MaxPayload+1), 0) },
		"negative offset": func() { c.Read(1, make([]byte, 512), -1) },
		"no allocation":   func() { c.BlockStatus(1, 0, 512, new([]Extent)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: nothing happens", name)
				}
			}()
			misuse()
		}()
	}
}

func TestParseURI(t *testing.T) {
	for uri, want := range map[string][]string{
		"nbd+unix:///data?socket=/run/x.sock":     {"/run/x.sock", "data"},
		"nbd+unix:///a%2Fb?socket=/a%20b/x.sock":  {"/a b/x.sock", "a/b"},
		"nbd+unix:///?socket=x":                   {"x", ""},
		"nbd://host/data":                         nil,
		"nbd+unix:///data":                        nil,
		"nbd+unix://host/data?socket=/run/x.sock": nil,
		"":     nil,
		"\x00": nil,
	} {
		socket, export, err := ParseURI(uri)
		if want == nil && err == nil || want != nil && !slices.Equal([]string{socket, export}, want) {
			t.Errorf("%q: %q %q %v", uri, socket, export, err)
		}
	}
}

// TestNothingAllocates on the way of a request, in either direction.
func TestNothingAllocates(t *testing.T) {
	const depth = 8
	c := dial(t, Options{Depth: depth}, func(f fake) {
		req := make([]byte, nbd.RequestHeaderSize)
		rep := make([]byte, nbd.SimpleReplySize+8192)
		pay := make([]byte, 8192)
		var h nbd.RequestHeader
		for {
			if _, err := readFull(f, req); err != nil {
				return
			}
			nbd.GetRequestHeader(req, &h)
			n := nbd.PutSimpleReply(rep, h.Handle, 0)
			if nbd.Command(h.Type) == nbd.CmdRead {
				n += int(h.Length)
			} else if _, err := readFull(f, pay[:h.Length]); err != nil {
				return
			}
			f.Write(rep[:n])
		}
	})
	bufs := make([][]byte, depth)
	for i := range bufs {
		bufs[i] = make([]byte, 8192)
	}
	round := func() {
		for i := range depth {
			if i%2 == 0 {
				c.Read(i, bufs[i], 0)
			} else {
				c.Write(i, bufs[i], 0)
			}
		}
		for range depth {
			if r, err := c.Next(); err != nil || r.Errno != 0 {
				t.Fatal(r, err)
			}
		}
	}
	round()
	if n := testing.AllocsPerRun(200, round); n > 0 {
		t.Errorf("%v allocations in %d requests", n, depth)
	}
}

func readFull(f fake, p []byte) (int, error) {
	for n := 0; ; {
		k, err := f.Read(p[n:])
		if n += k; n == len(p) || err != nil {
			return n, err
		}
	}
}
