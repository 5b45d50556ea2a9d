package nbdserver

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// script is a run of requests for a raw connection, with cookies 1, 2, ….
type script struct {
	b bytes.Buffer
	n uint64
}

func (s *script) add(cmd nbd.Command, off uint64, length uint32, data []byte) *script {
	s.n++
	if data != nil {
		length = uint32(len(data))
	}
	s.b.Write(nbdtest.Request(cmd, 0, s.n, off, length, data))
	return s
}

func (s *script) write(off uint64, data []byte) *script { return s.add(nbd.CmdWrite, off, 0, data) }
func (s *script) disc() *script                         { return s.add(nbd.CmdDisc, 0, 0, nil) }

// raw is a connection in the transmission whose replies nobody reads.
func (r *rig) raw() *nbdtest.Raw {
	r.t.Helper()
	raw := r.greet()
	if all, err := raw.Ask(nbd.OptGo, nbdtest.InfoData("disk")); err != nil || told(all) != "INFO:EXPORT ACK" {
		r.t.Fatal(told(all), err)
	}
	return raw
}

func (r *rig) send(c io.Writer, s *script) {
	r.t.Helper()
	if _, err := c.Write(s.b.Bytes()); err != nil {
		r.t.Fatal(err)
	}
}

// hangups are the ways a client leaves.
var hangups = map[string]func(*net.UnixConn) error{
	"close":    (*net.UnixConn).Close,
	"shutdown": (*net.UnixConn).CloseWrite,
}

// TestLateWrites is the kernel's story: a connection is stalled past the time-out, its
// requests are replayed on another and followed by newer ones. What the first
// still had waiting, wherever it waited, must not land.
func TestLateWrites(t *testing.T) {
	const n = 8
	old, replay, newer := pattern(4096, 1), pattern(4096, 1), pattern(4096, 9)
	for how, hangup := range hangups {
		for where, offset := range map[string]func(i int) uint64{
			"waiting for the lock":       func(int) uint64 { return 0 },
			"waiting in the socket":      func(i int) uint64 { return uint64(i) * 4096 },
			"partly in the same granule": func(i int) uint64 { return uint64(i) * 100 },
		} {
			t.Run(how+"/"+where, func(t *testing.T) {
				paths(t, func(t *testing.T, cfg Config) {
					cfg.MaxRequests = 1
					if where == "waiting for the lock" {
						cfg.MaxRequests = n // all of them got as far as the lock
					}
					dev, faults := ram(mib)
					r := newRig(t, cfg, dev)
					a, b := r.raw(), r.raw()
					gate := blockdevtest.NewGate()
					faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpWrite, Times: 1, Gate: gate})

					late := &script{}
					for i := range n {
						late.write(offset(i), old)
					}
					late.add(nbd.CmdTrim, 0, 64*kib, nil).add(nbd.CmdWriteZeroes, 0, 64*kib, nil)
					r.send(a, late)
					gate.Arrived() // A's first write is in the device, held
					if err := hangup(a.UnixConn); err != nil {
						t.Fatal(err)
					}
					again := &script{}
					for i := range n {
						again.write(offset(i), replay)
					}
					for i := range n {
						again.write(offset(i), newer)
					}
					r.send(b, again)
					gate.Open()
					for range again.n {
						rep, err := b.Bytes(nbd.SimpleReplySize)
						if err != nil || nbd.GetSimpleReply(rep).Error != 0 {
							t.Fatalf("% x, %v", rep, err)
						}
					}
					a.Close()
					b.Close()
					r.stop()
					if got, want := faults.Count(blockdevtest.OpWrite), 1+2*n; got != want {
						t.Errorf("%d writes reached the device, want %d", got, want)
					}
					if got := faults.Count(blockdevtest.OpPunch | blockdevtest.OpZero); got != 0 {
						t.Errorf("%d trims and zeroes of the dead connection reached the device", got)
					}
					want := make([]byte, mib)
					for i := range n {
						copy(want[offset(i):], newer)
					}
					if !bytes.Equal(dev.Bytes(), want) {
						t.Error("an old write landed on newer data")
					}
				})
			})
		}
	}
}

// TestDiscFinishesWhatIsOutstanding: the same stream with a DISC at its end is a client
// that took its leave: everything runs.
func TestDiscFinishesWhatIsOutstanding(t *testing.T) {
	const n = 8
	for how, hangup := range hangups {
		for _, most := range []int{1, 2, 100} {
			t.Run(fmt.Sprintf("%s/%d requests at a time", how, most), func(t *testing.T) {
				paths(t, func(t *testing.T, cfg Config) {
					cfg.MaxRequests = most
					dev, faults := ram(mib)
					r := newRig(t, cfg, dev)
					a := r.raw()
					gate := blockdevtest.NewGate()
					faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpWrite, Times: 1, Gate: gate})
					s := &script{}
					for i := range n {
						s.write(uint64(i)*512, pattern(8192, byte(i)))
					}
					r.send(a, s.disc())
					gate.Arrived()
					if err := hangup(a.UnixConn); err != nil {
						t.Fatal(err)
					}
					gate.Open()
					r.waitConnections(0)
					if got := faults.Count(blockdevtest.OpWrite); got != n {
						t.Errorf("%d writes ran, want %d", got, n)
					}
					want := make([]byte, mib)
					for i := range n {
						copy(want[i*512:], pattern(8192, byte(i)))
					}
					if !bytes.Equal(dev.Bytes(), want) {
						t.Error("contents differ")
					}
				})
			})
		}
	}
}

// TestLimboHoldsNobodyUp: a change that must not run yet, since the end of its stream is
// not known, holds granules; the reader finds out while it is still stalled
// itself, and others go on.
func TestLimboHoldsNobodyUp(t *testing.T) {
	for _, ending := range []string{"disc", "broken off", "mid-payload", "garbage"} {
		t.Run(ending, func(t *testing.T) {
			dev, faults := ram(mib)
			r := newRig(t, Config{MaxRequests: 2}, dev)
			a, b, c := r.raw(), r.connect(false), r.connect(false)
			gateA, gateB := blockdevtest.NewGate(), blockdevtest.NewGate()
			faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpWrite, Off: 0, Len: 512, Times: 1, Gate: gateA})
			faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpWrite, Off: 4096, Len: 512, Times: 1, Gate: gateB})

			byB := b.Start(nbd.CmdWrite, 0, 4096, 0, pattern(512, 'b'))
			gateB.Arrived()
			// A: one write in the device, one waiting for B's granule, the rest in the
			// socket, as the reader may have no third request.
			s := (&script{}).write(0, pattern(512, 'a')).write(4096, pattern(512, 'a'))
			for i := range 300 { // more than the read buffer holds
				s.write(uint64(8192+i*512), pattern(512, 'a'))
			}
			switch ending {
			case "disc":
				s.disc()
			case "mid-payload":
				s.b.Truncate(s.b.Len() - 100)
			case "garbage":
				s.b.Write(make([]byte, 100))
			}
			r.send(a, s)
			gateA.Arrived()
			a.Close()
			gateB.Open()
			if err := byB.Wait(); err != nil {
				t.Fatal(err)
			}
			// C's write comes after A's on that granule.
			if err := c.Start(nbd.CmdWrite, 0, 4096, 0, pattern(512, 'c')).Wait(); err != nil {
				t.Fatal(err)
			}
			if call, err := c.Do(nbd.CmdRead, 0, 4096, 512, nil); err != nil || !bytes.Equal(call.Data, pattern(512, 'c')) {
				t.Errorf("C's write is not the last (%v)", err)
			}
			gateA.Open()
			r.waitConnections(2)
			want := 3 // A's first, B's, C's
			if ending == "disc" {
				want += 301
			}
			if got := faults.Count(blockdevtest.OpWrite); got != want {
				t.Errorf("%d writes ran, want %d", got, want)
			}
		})
	}
}

// TestDeathMidWrite: half a payload changes nothing.
func TestDeathMidWrite(t *testing.T) {
	dev, faults := ram(64 * mib)
	r := newRig(t, Config{}, dev)
	for _, size := range []int{512, 4096, 100 * kib, 32 * mib} {
		for _, cut := range []int{1, size / 2, size - 1} {
			a := r.raw()
			req := nbdtest.Request(nbd.CmdWrite, 0, 1, 0, uint32(size), pattern(size, 1))
			if _, err := a.Write(req[:nbd.RequestHeaderSize+cut]); err != nil {
				t.Fatal(err)
			}
			a.Close()
		}
	}
	r.waitConnections(0)
	if n := faults.Count(blockdevtest.OpWrite); n != 0 {
		t.Errorf("%d writes", n)
	}
}

// TestDeathMidReply: a client leaves while a reply of 32 MiB is on its way.
func TestDeathMidReply(t *testing.T) {
	dev, _ := ram(64 * mib)
	r := newRig(t, Config{}, dev)
	for range 3 {
		a := r.raw()
		r.send(a, (&script{}).add(nbd.CmdRead, 0, 32*mib, nil).add(nbd.CmdRead, 0, 32*mib, nil))
		if _, err := a.Bytes(mib); err != nil {
			t.Fatal(err)
		}
		a.Close()
	}
	r.waitConnections(0)
}

// TestClientThatDoesNotRead is dropped after a while, and others of the same
// disk do not wait for it.
func TestClientThatDoesNotRead(t *testing.T) {
	dev, _ := ram(64 * mib)
	r := newRig(t, Config{StallTimeout: 50 * time.Millisecond}, dev)
	a, b := r.raw(), r.connect(true)
	r.send(a, (&script{}).add(nbd.CmdRead, 0, 32*mib, nil).add(nbd.CmdRead, 0, 32*mib, nil).add(nbd.CmdRead, 0, 32*mib, nil))
	for range 100 {
		if _, err := b.Do(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
			t.Fatal(err)
		}
	}
	r.waitConnections(1)
	if _, err := b.Do(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
}

// TestClientThatStopsWithinARequest holds memory for it, and is dropped too;
// one that is silent between requests stays.
func TestClientThatStopsWithinARequest(t *testing.T) {
	dev, _ := ram(mib)
	r := newRig(t, Config{StallTimeout: 20 * time.Millisecond}, dev)
	idle := r.connect(false)
	req := nbdtest.Request(nbd.CmdWrite, 0, 1, 0, 4096, make([]byte, 4096))
	for _, n := range []int{1, nbd.RequestHeaderSize, nbd.RequestHeaderSize + 1000} {
		a := r.raw()
		if _, err := a.Write(req[:n]); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Bytes(1); err == nil {
			t.Error("a reply to a part of a request")
		}
	}
	if _, err := idle.Do(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Errorf("a client that was merely idle: %v", err)
	}
}
