package nbdserver

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// crew is the goroutines that serve one connection. One of them has the
// leader's seat: it reads requests, and runs short ones itself. Before it runs a
// long one it gives the seat away and runs the request nevertheless, since the payload is in
// its processor's cache; a colleague reads on. Should a request that it runs in its
// seat take long, the watch gives the seat away for it.
//
// Members wait in futex(2): handing the seat over costs one system call and Go's scheduler
// is not asked.
type crew struct {
	seat    atomic.Uint32 // a futex: seatTaken, seatVacant, seatClosed
	parked  atomic.Int32  // members that wait for the seat
	members atomic.Int32

	// turn is odd while the leader runs a request in its seat. Whoever makes it even
	// again, the leader or the watch, has the seat from then on.
	turn atomic.Uint64
	tid  atomic.Int32 // the leader's thread
	seen uint64       // the watch's: turn at its last look
}

const (
	seatTaken uint32 = iota
	seatVacant
	seatClosed
)

// crewSize is how many members a connection has, stuck ones not counted: one
// per processor and one that reads.
var crewSize = int32(min(runtime.NumCPU(), 8) + 1)

const (
	futexWait = 0 | 128 // FUTEX_WAIT, private
	futexWake = 1 | 128
)

func futex(word *atomic.Uint32, op, val uintptr) {
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), op, val, 0, 0, 0)
}

// sit waits for the seat; false when there is nothing more to read, or when the crew
// has members enough.
func (w *crew) sit() bool {
	for {
		if w.seat.CompareAndSwap(seatVacant, seatTaken) {
			return true
		}
		if w.seat.Load() == seatClosed || w.members.Load() > crewSize {
			return false
		}
		w.parked.Add(1)
		futex(&w.seat, futexWait, uintptr(seatTaken))
		w.parked.Add(-1)
	}
}

// spare reports whether somebody could take the seat now.
func (w *crew) spare() bool { return w.parked.Load() > 0 || w.members.Load() < crewSize }

// leave gives the seat away, to a new member if nobody waits for it. Only for who has it.
func (c *conn) leave() {
	c.crew.seat.Store(seatVacant)
	if c.crew.parked.Load() > 0 {
		futex(&c.crew.seat, futexWake, 1)
		return
	}
	c.join()
}

// join adds a member.
func (c *conn) join() {
	c.crew.members.Add(1)
	c.members.Add(1)
	go c.member()
}

// member serves until there is nothing more to read.
func (c *conn) member() {
	runtime.LockOSThread() // so that the watch can ask for the thread's state
	defer runtime.UnlockOSThread()
	tid := int32(unix.Gettid())
	x := newExecutor()
	for c.crew.sit() {
		c.crew.tid.Store(tid)
		r, more := c.lead(x)
		if r != nil {
			x.run(r)
		}
		if !more {
			break
		}
	}
	c.crew.members.Add(-1)
	c.members.Done()
}

// dismiss tells the members that there is nothing more to read. Only for the leader.
func (w *crew) dismiss() {
	w.seat.Store(seatClosed)
	futex(&w.seat, futexWake, 1<<30)
}
