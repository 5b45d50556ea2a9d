package nbdserver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

const granule = 512

// promises is what clients of one disk were told, and judges what a power cut
// left. Clients work on the same granules at once, so the order of two changes is known only
// if one was answered before the other was sent. A granule may hold what a
// change put there unless a durable change came surely after it; a change is durable by
// its own FUA, or by a FLUSH that was sent, on any connection, after its reply.
type promises struct {
	rec  *blockdevtest.Recorder
	tick atomic.Int64 // the order of sendings and replies

	mu      sync.Mutex
	changes []*promise
	flushes []*promise
}

type promise struct {
	lo, hi     int64
	value      uint64 // what fills each granule; 0: zeros
	sent, told int64  // ticks; told is the largest while under way
	begin, end int    // the recorder's positions
	fua        bool
}

func (o *promises) send(p promise) *promise {
	p.sent, p.told, p.begin, p.end = o.tick.Add(1), 1<<62, o.rec.Pos(), 1<<62
	o.mu.Lock()
	defer o.mu.Unlock()
	if p.hi > p.lo {
		o.changes = append(o.changes, &p)
	} else {
		o.flushes = append(o.flushes, &p)
	}
	return &p
}

func (o *promises) reply(p *promise) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.end, p.told = o.rec.Pos(), o.tick.Add(1)
}

// durable reports whether c had to survive a cut at pos.
func (o *promises) durable(c *promise, pos int) bool {
	if c.fua && c.end <= pos {
		return true
	}
	for _, f := range o.flushes {
		if c.told < f.sent && f.end <= pos {
			return true
		}
	}
	return false
}

// judge checks contents against what may be there after a cut at pos.
func (o *promises) judge(contents []byte, pos int) error {
	for g := int64(0); g < int64(len(contents)); g += granule {
		got := contents[g : g+granule]
		value := binary.LittleEndian.Uint64(got)
		if !bytes.Equal(got, bytes.Repeat(got[:8], granule/8)) {
			return fmt.Errorf("cut at %d: granule at byte %d is torn: % x … % x", pos, g, got[:8], got[granule-8:])
		}
		var touching []*promise
		for _, c := range o.changes {
			if c.lo <= g && g < c.hi && c.begin <= pos {
				touching = append(touching, c)
			}
		}
		first := &promise{sent: -1, told: -1} // the zeros of the beginning
		legal := false
		for _, c := range append(touching, first) {
			if c.value != value || legal {
				continue
			}
			legal = true
			for _, later := range touching {
				if c.told < later.sent && o.durable(later, pos) {
					legal = false
				}
			}
		}
		if !legal {
			return fmt.Errorf("cut at %d: granule at byte %d holds %#x, which it must not any more", pos, g, value)
		}
	}
	return nil
}

func openCrypt(st blockdev.Storage) (blockdev.Device, error) {
	f, err := blockdev.NewFile(st, blockdev.FileOptions{Discard: true})
	if err != nil {
		return nil, err
	}
	return blockdev.NewCrypt(f, blockdevtest.Cipher(42), blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true})
}

// work sends requests one after the other on c.
func (o *promises) work(c *nbdtest.Client, id uint64, large bool, rng *rand.Rand) error {
	for i := range uint64(3 + rng.IntN(12)) {
		var flags nbd.CommandFlags
		p := promise{value: id<<32 | i + 1}
		cmd := []nbd.Command{nbd.CmdWrite, nbd.CmdWrite, nbd.CmdWrite, nbd.CmdTrim, nbd.CmdWriteZeroes, nbd.CmdFlush, nbd.CmdFlush, nbd.CmdRead}[rng.IntN(8)]
		switch {
		case cmd == nbd.CmdFlush:
		case large && rng.IntN(6) == 0: // in more than one piece
			p.lo = rng.Int64N(100) * granule
			p.hi = p.lo + blockSize + rng.Int64N(200)*granule
		default:
			p.lo = rng.Int64N(40) * granule
			p.hi = p.lo + (1+rng.Int64N(16))*granule
		}
		if cmd == nbd.CmdTrim || cmd == nbd.CmdWriteZeroes {
			p.value = 0
		}
		if rng.IntN(4) == 0 {
			p.fua = true
			flags = nbd.FlagFUA
		}
		off, length := uint64(p.lo), uint32(p.hi-p.lo)
		if cmd == nbd.CmdRead {
			if _, err := c.Do(cmd, flags, off, length, nil); err != nil {
				return err
			}
			continue
		}
		data := make([]byte, length)
		for j := 0; j < len(data); j += 8 {
			binary.LittleEndian.PutUint64(data[j:], p.value)
		}
		told := o.send(p)
		if _, err := c.Do(cmd, flags, off, length, data); err != nil {
			return fmt.Errorf("%v: %w", cmd, err)
		}
		o.reply(told)
	}
	return nil
}

// schedule runs one random schedule and cuts the power at some points.
func schedule(t *testing.T, seed uint64) (undecided int) {
	rng := blockdevtest.Rand(seed)
	size, large := int64(32*kib), rng.IntN(16) == 0
	if large {
		size = 640 * kib
	}
	rec := blockdevtest.NewRecorder(make([]byte, size))
	dev, err := openCrypt(rec)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, Config{Path: Path(rng.IntN(3))}, dev)
	o := &promises{rec: rec}
	errs := make(chan error)
	clients := []*nbdtest.Client{r.connect(false), r.connect(true), r.connect(false)}
	const workers = 4
	for id := range workers {
		own := blockdevtest.Rand(rng.Uint64())
		go func() { errs <- o.work(clients[id%len(clients)], uint64(id+1), large, own) }()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	for _, c := range clients {
		c.Conn.Close()
	}
	r.stop()
	for i := range 4 {
		pos := rec.Pos()
		if i > 0 {
			pos = rng.IntN(pos + 1)
		}
		out := rec.Crash(pos)
		if out.Undecided() > 0 {
			undecided++
		}
		for _, img := range [][]byte{out.Oldest(), out.Newest(), out.Pick(rng)} {
			after, err := openCrypt(blockdevtest.NewRecorder(img))
			if err != nil {
				t.Fatal(err)
			}
			contents := make([]byte, size)
			if err := after.ReadAt(contents, 0); err != nil {
				t.Fatal(err)
			}
			if err := o.judge(contents, pos); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
	return undecided
}

// TestPowerCut: whatever is lost, nothing is that a client was told is
// durable. SEALDISK_POWERCUTS sets the number of schedules.
func TestPowerCut(t *testing.T) {
	n := blockdevtest.Count(t, "SEALDISK_POWERCUTS", 1000)
	seed := blockdevtest.Seed(t, 1)
	undecided := 0
	for i := range uint64(n) {
		undecided += schedule(t, seed+i)
		if t.Failed() {
			t.FailNow()
		}
	}
	if undecided < n/10 {
		t.Errorf("only %d cuts of %d schedules had something to lose", undecided, n)
	}
}
