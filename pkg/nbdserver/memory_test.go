package nbdserver

import (
	"fmt"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// user is one connection's view of a memory, without the connection.
func user(a *account) (*memUser, *int) {
	woken := new(int)
	return &memUser{acct: a, wake: func() { *woken++ }}, woken
}

func give(m *memory, u *memUser, n int64) { m.release(u, &request{held: n}) }

func TestMemoryShares(t *testing.T) {
	m := newMemory(Config{MemoryTotal: 1, MemoryDisk: 8 * mib, MemoryConn: 1})
	if m.total != 8*mib+largest || m.conn != largest {
		t.Fatalf("total %d, connection %d: not raised to hold the largest request", m.total, m.conn)
	}
	m.total = 16*mib + largest
	open := func() *account {
		a, err := m.open()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, b := open(), open()
	if _, err := m.open(); err != ErrTooManyDisks {
		t.Errorf("a third disk: %v", err)
	}
	greedy, greedyWoken := user(a)
	other, _ := user(b)
	m.conn = 1 << 40
	if !m.reserve(greedy, 8*mib+largest) {
		t.Fatal("a disk may not have its share and the pool")
	}
	if m.reserve(greedy, 1) {
		t.Fatal("a disk took from another's share")
	}
	if !m.reserve(other, 8*mib) {
		t.Error("a disk did not get its share while another had the pool")
	}
	if m.reserve(other, 4096) || *greedyWoken != 0 {
		t.Error("more than there is was given out")
	}
	// One byte comes back to the pool: the first in the queue is served.
	give(m, greedy, 1)
	if *greedyWoken != 1 || !m.settled(greedy) || m.settled(greedy) {
		t.Error("the first to wait did not get what came back")
	}
	give(m, greedy, 4096)
	if !m.settled(other) {
		t.Error("the second to wait did not get what came back")
	}
	give(m, other, 8*mib+4096)
	give(m, greedy, 8*mib+largest-4096)
	m.close(a)
	m.close(b)
	if m.pool != 0 || m.shares != 0 {
		t.Errorf("left: pool %d, shares %d", m.pool, m.shares)
	}
}

// TestMemoryOrder: a large request is not starved by small ones, of its own disk or others.
func TestMemoryOrder(t *testing.T) {
	m := newMemory(Config{MemoryDisk: mib, MemoryTotal: 2*mib + largest})
	a, _ := m.open()
	b, _ := m.open()
	small, _ := user(a)
	large, woken := user(a)
	sameDisk, _ := user(a)
	otherDisk, _ := user(b)
	if !m.reserve(small, 2*mib) { // a mebibyte of it from the pool
		t.Fatal("does not fit")
	}
	if m.reserve(large, largest) {
		t.Fatal("does fit")
	}
	if m.reserve(sameDisk, 4096) {
		t.Error("a small request overtook a large one of its disk")
	}
	if !m.reserve(otherDisk, mib) {
		t.Error("a disk's share was closed by another's wait")
	}
	if m.reserve(otherDisk, 4096) {
		t.Error("a small request took from the pool that a large one waits for")
	}
	give(m, small, mib)
	if *woken != 1 || !m.settled(large) {
		t.Fatal("the large request was not served first")
	}
	give(m, large, largest)
	if !m.settled(sameDisk) || !m.settled(otherDisk) {
		t.Error("those behind it were not served")
	}
}

// TestMemoryOwnDisk: nor is it overtaken within its disk's share, which would
// never be free again.
func TestMemoryOwnDisk(t *testing.T) {
	m := newMemory(Config{MemoryDisk: mib, MemoryTotal: 2*mib + largest, MemoryConn: 1 << 40})
	a, _ := m.open()
	b, _ := m.open()
	hog, _ := user(b)
	large, _ := user(a)
	small, woken := user(a)
	if !m.reserve(hog, mib+largest) || m.reserve(large, 2*mib) {
		t.Fatal("the pool is not full")
	}
	if m.reserve(small, 4096) {
		t.Error("a small request took from the share that a large one waits for")
	}
	give(m, hog, 2*mib)
	if !m.settled(large) || *woken != 1 || !m.settled(small) {
		t.Error("not served in order")
	}
}

// TestMemoryConnection: a connection at its own bound waits alone.
func TestMemoryConnection(t *testing.T) {
	m := newMemory(Config{MemoryDisk: mib, MemoryTotal: 1 << 30, MemoryConn: largest})
	a, _ := m.open()
	full, woken := user(a)
	if !m.reserve(full, largest) || m.reserve(full, 4096) {
		t.Fatal("bound per connection")
	}
	next, _ := user(a)
	if !m.reserve(next, mib) {
		t.Error("a connection at its bound holds up another")
	}
	give(m, full, 4096)
	if *woken != 1 || !m.settled(full) {
		t.Error("not served when its own came back")
	}
}

// TestMemoryCancel: who leaves the queue, at whichever place or served already,
// leaves it in order.
func TestMemoryCancel(t *testing.T) {
	for leaver := range 4 {
		m := newMemory(Config{MemoryDisk: mib, MemoryTotal: mib + largest, MemoryConn: 1 << 40})
		a, _ := m.open()
		holder, _ := user(a)
		if !m.reserve(holder, mib+largest) {
			t.Fatal("does not fit")
		}
		var users []*memUser
		for range 4 {
			u, _ := user(a)
			if m.reserve(u, largest/2) {
				t.Fatal("does fit")
			}
			users = append(users, u)
		}
		m.cancel(users[leaver])
		give(m, holder, mib+largest) // room for two, and a share
		var served []int
		for i, u := range users {
			if m.settled(u) {
				served = append(served, i)
			}
		}
		want := map[int]string{0: "[1 2]", 1: "[0 2]", 2: "[0 1]", 3: "[0 1]"}[leaver]
		if fmt.Sprint(served) != want {
			t.Errorf("%d left: served %v, want %s", leaver, served, want)
		}
		last := users[3-leaver/3]
		for _, i := range served {
			give(m, users[i], largest/2)
		}
		if !last.granted {
			t.Errorf("%d left: the last was not granted", leaver)
		}
		m.cancel(last) // granted, not collected
		if a.used != 0 || m.pool != 0 || len(m.waiting) != 0 {
			t.Errorf("%d left: %d used, pool %d, %d waiting", leaver, a.used, m.pool, len(m.waiting))
		}
	}
}

func TestArena(t *testing.T) {
	var a arena
	rng := blockdevtest.Rand(blockdevtest.Seed(t, 3))
	out := map[*byte]piece{}
	for range 20000 {
		if len(out) < 200 && rng.IntN(2) == 0 {
			n := 1 + rng.IntN(blockSize)
			if rng.IntN(3) > 0 {
				n = 1 + rng.IntN(8192)
			}
			p, err := a.get(n)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.b) != n || int64(cap(p.b)) != pieceBytes(n) {
				t.Fatalf("piece for %d: length %d, capacity %d", n, len(p.b), cap(p.b))
			}
			// Every byte is this piece's alone.
			if p.b[0] != 0 || p.b[n-1] != 0 {
				t.Fatal("the piece is in use twice")
			}
			p.b[0], p.b[n-1] = 1, 1
			out[&p.b[0]] = p
			continue
		}
		for k, p := range out {
			p.b[0], p.b[len(p.b)-1] = 0, 0
			a.put(p)
			delete(out, k)
			break
		}
	}
	for _, p := range out {
		a.put(p)
	}
	for kind, blk := range a.cut {
		if blk != nil {
			t.Errorf("a block stays cut into pieces of %d", minPiece<<kind)
		}
	}
	// More than is kept resident goes back to the kernel.
	var all []piece
	for range maxResident/blockSize + 40 {
		p, err := a.get(blockSize)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	for _, p := range all {
		a.put(p)
	}
	if a.nfree != maxResident/blockSize || a.returned == nil {
		t.Errorf("%d blocks are kept, want %d", a.nfree, maxResident/blockSize)
	}
}

func TestReserved(t *testing.T) {
	for _, c := range []struct {
		off  uint64
		n    uint32
		want int64
	}{
		{0, 1, 4096}, {0, 4096, 4096}, {0, 4097, 8192}, {4095, 2, 4096}, {0, blockSize, blockSize},
		{1, blockSize, blockSize + 4096}, {0, 32 * mib, 32 * mib}, {4095, 32 * mib, 32*mib + 4096},
	} {
		if got := reserved(c.off, c.n); got != c.want {
			t.Errorf("reserved(%d, %d) = %d, want %d", c.off, c.n, got, c.want)
		}
		if c.want > largest {
			t.Errorf("%d is more than the largest, %d", c.want, largest)
		}
	}
}

// TestLittleMemory: with the least there may be, every size is served, and
// clients that take no replies do not stop another disk's.
func TestLittleMemory(t *testing.T) {
	dev, _ := ram(64 * mib)
	r := newRig(t, Config{MemoryTotal: 2*mib + largest, MemoryDisk: mib, MemoryConn: 1}, dev)
	small, _ := ram(mib)
	r.table.add(newExport("other", small))
	for range 3 { // each asks for the pool, and never reads
		s := &script{}
		for range 4 {
			s.add(nbd.CmdRead, 0, 32*mib, nil)
		}
		r.send(r.raw(), s)
	}
	other, err := nbdtest.Connect(r.dial(), "other", nbdtest.Features{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if err := other.Start(nbd.CmdWrite, 0, 0, 0, pattern(512*kib, byte(i))).Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTooManyDisks: there is a share for each disk or none.
func TestTooManyDisks(t *testing.T) {
	dev, _ := ram(mib)
	r := newRig(t, Config{MemoryTotal: mib + largest, MemoryDisk: mib}, dev)
	r.table.add(&Export{Name: "other", Device: dev, Locks: new(blockdev.RangeLock), Gate: new(Gate)})
	first := r.connect(false)
	raw := r.greet()
	all, err := raw.Ask(nbd.OptGo, nbdtest.InfoData("other"))
	if err != nil || told(all) != "ERR_POLICY" {
		t.Errorf("a second disk: %s, %v", told(all), err)
	}
	if err := first.Disconnect(); err != nil {
		t.Fatal(err)
	}
	r.waitConnections(0)
	if all, err = raw.Ask(nbd.OptGo, nbdtest.InfoData("other")); err != nil || told(all) != "INFO:EXPORT ACK" {
		t.Errorf("once there is room: %s, %v", told(all), err)
	}
}
