package nbdserver

import (
	"errors"
	"sync"

	"sealdisk/pkg/nbd"
)

// ErrTooManyDisks is returned when the memory in all leaves no share for one
// more disk.
var ErrTooManyDisks = errors.New("no memory for one more disk: raise the server's total")

// largest is what the largest request uses of the arena, in bytes.
var largest = reserved(1, nbd.MaxPayload)

// memory accounts for the payload under way and hands it out.
//
// A reservation is whole or not at all. It counts against its connection's
// bound, against its disk's share, which is kept for that disk and never lent,
// and, for what exceeds the share, against the pool of all disks. Who doesn't
// fit waits in his disk's queue. Nobody of that disk overtakes, and while a disk waits
// for the pool nobody who came later takes of it; since the pool holds at least the largest
// request, everybody gets his turn. A connection at its own bound waits
// outside the queue: it holds nobody up.
type memory struct {
	mu      sync.Mutex
	arena   arena
	total   int64
	share   int64 // of each disk
	conn    int64 // bound per connection
	shares  int64 // sum of the shares given
	pool    int64 // in use beyond the shares
	waiting []*account
}

// account is what one disk uses. It is guarded by memory.mu.
type account struct {
	used       int64
	head, tail *memUser
}

// memUser is what one connection uses, and its place in the queue. It is
// guarded by memory.mu.
type memUser struct {
	acct    *account
	used    int64
	want    int64 // waiting for so much
	queued  bool
	granted bool
	next    *memUser
	wake    func()
}

func newMemory(cfg Config) *memory {
	return &memory{
		share: cfg.MemoryDisk,
		total: max(cfg.MemoryTotal, cfg.MemoryDisk+largest),
		conn:  max(cfg.MemoryConn, largest),
	}
}

// open sets a disk's share aside.
func (m *memory) open() (*account, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shares+m.share+max(m.pool, largest) > m.total {
		return nil, ErrTooManyDisks
	}
	m.shares += m.share
	return &account{}, nil
}

// close gives a disk's share back. Its connections are gone.
func (m *memory) close(a *account) {
	m.mu.Lock()
	m.shares -= m.share
	m.pumpLocked()
	m.mu.Unlock()
}

// over is the part of n bytes beyond a disk's share.
func (m *memory) over(n int64) int64 { return max(0, n-m.share) }

// fitsLocked reports whether a's disk may use n bytes more, and if need be
// take them from the pool.
func (m *memory) fitsLocked(a *account, n int64, pool bool) bool {
	extra := m.over(a.used+n) - m.over(a.used)
	return extra == 0 || pool && m.shares+m.pool+extra <= m.total
}

func (m *memory) takeLocked(u *memUser, n int64) {
	a := u.acct
	m.pool += m.over(a.used+n) - m.over(a.used)
	a.used += n
	u.used += n
}

func (m *memory) giveLocked(u *memUser, n int64) {
	a := u.acct
	m.pool -= m.over(a.used) - m.over(a.used-n)
	a.used -= n
	u.used -= n
}

// reserve takes n bytes for u and reports true, or leaves u waiting: u.wake is
// called when settled should be asked.
func (m *memory) reserve(u *memUser, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.freeLocked(u, n) {
		m.takeLocked(u, n)
		return true
	}
	u.want, u.granted = n, false
	m.enqueueLocked(u)
	m.pumpLocked()
	return u.collectLocked()
}

// settled reports whether what u waits for was reserved.
func (m *memory) settled(u *memUser) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return u.collectLocked()
}

// fits reports whether reserve would not wait.
func (m *memory) fits(u *memUser, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.freeLocked(u, n)
}

func (m *memory) freeLocked(u *memUser, n int64) bool {
	return u.used+n <= m.conn && u.acct.head == nil && m.fitsLocked(u.acct, n, len(m.waiting) == 0)
}

func (u *memUser) collectLocked() bool {
	if !u.granted {
		return false
	}
	u.granted, u.want = false, 0
	return true
}

// cancel ends u's waiting.
func (m *memory) cancel(u *memUser) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.granted {
		u.granted = false
		m.giveLocked(u, u.want)
	} else if u.queued {
		for p := &u.acct.head; *p != nil; p = &(*p).next {
			if *p == u {
				*p = u.next
				break
			}
		}
		u.acct.tail = nil
		for w := u.acct.head; w != nil; w = w.next {
			u.acct.tail = w
		}
		u.queued = false
	}
	u.want, u.next = 0, nil
	m.pumpLocked()
}

// enqueueLocked puts u, which waits, into its disk's queue, once its own bound allows.
func (m *memory) enqueueLocked(u *memUser) {
	if u.queued || u.want == 0 || u.granted || u.used+u.want > m.conn {
		return
	}
	a := u.acct
	if a.head == nil {
		a.head = u
		m.waiting = append(m.waiting, a)
	} else {
		a.tail.next = u
	}
	a.tail, u.next, u.queued = u, nil, true
}

// pumpLocked grants what fits, first come first served within each disk and
// for the pool.
func (m *memory) pumpLocked() {
	still := m.waiting[:0]
	for _, a := range m.waiting {
		for u := a.head; u != nil && m.fitsLocked(a, u.want, len(still) == 0); u = a.head {
			a.head = u.next
			m.takeLocked(u, u.want)
			u.next, u.queued, u.granted = nil, false, true
			u.wake()
		}
		if a.head != nil {
			still = append(still, a)
		} else {
			a.tail = nil
		}
	}
	clear(m.waiting[len(still):])
	m.waiting = still
}

// fill gives r pieces for n bytes at device offset off, which were reserved.
func (m *memory) fill(r *request, off uint64, n uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n > 0 {
		k := firstPiece(off, n)
		p, err := m.arena.get(int(k))
		if err != nil {
			return err
		}
		r.pieces = append(r.pieces, p)
		off, n = off+uint64(k), n-k
	}
	return nil
}

// release takes back the pieces of a list of requests of u's connection, and what they had reserved.
func (m *memory) release(u *memUser, list *request) {
	m.mu.Lock()
	for r := list; r != nil; r = r.next {
		for _, p := range r.pieces {
			m.arena.put(p)
		}
		clear(r.pieces)
		r.pieces = r.pieces[:0]
		m.giveLocked(u, r.held)
		r.held = 0
	}
	m.enqueueLocked(u)
	if len(m.waiting) > 0 {
		m.pumpLocked()
	}
	m.mu.Unlock()
}

// firstPiece is the length of the first piece of n bytes at off: pieces end
// on multiples of the preferred block size, so that no block is written in two parts.
func firstPiece(off uint64, n uint32) uint32 {
	return min(n, blockSize-uint32(off%nbd.PreferredBlock))
}

// reserved is what a request for n bytes at off uses of the arena.
func reserved(off uint64, n uint32) int64 {
	var sum int64
	for n > 0 {
		k := firstPiece(off, n)
		sum += pieceBytes(int(k))
		off, n = off+uint64(k), n-k
	}
	return sum
}
