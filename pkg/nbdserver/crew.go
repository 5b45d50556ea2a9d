package nbdserver

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// crew is the goroutines that serve one connection. One of them leads: it
// reads requests and runs them itself, one after the other, while the payload is in
// its processor's cache. Is it running a long one, or one that turns out to block, a colleague
// without work takes the lead from it and reads on; who has lost the lead
// finishes his request and looks for work in turn.
//
// Nobody is handed anything: the lead is taken by one compare-and-swap, and a colleague is
// woken only if he sleeps. He sleeps in futex(2), so Go's scheduler is not asked.
type crew struct {
	// turn counts the leader's runs in steps of turnNext. Who changes it from
	// turnRuns to the next has the lead.
	turn atomic.Uint64
	tid  atomic.Int32 // the leader's thread then
	// The watch's: turn at its last look, how often it was that, and whether
	// somebody was called to take the lead.
	seen  uint64
	looks int
	told  bool

	closed  atomic.Bool
	members atomic.Int32
	eager   atomic.Int32  // of them looking for work
	parked  atomic.Int32  // of them asleep, on bell
	bell    atomic.Uint32 // a futex, rings once for each change
}

const (
	turnRuns uint64 = 1 << iota // the leader runs a request
	turnOpen                    // and anybody may take the lead
	turnNext
)

// crewSize is how many members a connection has, those apart that block: one per
// processor, as far as that is of use to one connection.
var crewSize = int32(min(max(runtime.NumCPU(), 2), 8))

const (
	futexWait = 0 | 128 // FUTEX_WAIT, private
	futexWake = 1 | 128
)

func futex(word *atomic.Uint32, op, val uintptr) {
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), op, val, 0, 0, 0)
}

func (w *crew) ring(n uintptr) {
	w.bell.Add(1)
	futex(&w.bell, futexWake, n)
}

// begin notes that the leader runs a request; open lets others take the lead. It returns
// the turn for end.
func (w *crew) begin(open bool) uint64 {
	turn := w.turn.Load() | turnRuns
	if open {
		turn |= turnOpen
	}
	w.turn.Store(turn)
	return turn
}

// end notes that the request has run, and reports whether the caller still leads.
func (w *crew) end(turn uint64) bool {
	next := (turn | turnRuns | turnOpen) + 1
	return w.turn.CompareAndSwap(turn, next) || w.turn.CompareAndSwap(turn|turnOpen, next)
}

// take takes the lead if that is open.
func (w *crew) take() bool {
	turn := w.turn.Load()
	return turn&turnOpen != 0 && w.turn.CompareAndSwap(turn, turn+1)
}

// work waits for the lead; false when there is nothing more to read, or when the crew
// has members enough.
func (w *crew) work() bool {
	for {
		if w.take() {
			return true
		}
		if w.closed.Load() || w.members.Load() > crewSize {
			return false
		}
		if w.look() {
			continue
		}
		w.parked.Add(1)
		bell := w.bell.Load()
		if !w.closed.Load() && w.turn.Load()&turnOpen == 0 {
			futex(&w.bell, futexWait, uintptr(bell))
		}
		w.parked.Add(-1)
	}
}

// look looks for work for a while without sleeping, and reports whether it saw some.
func (w *crew) look() bool {
	if !canLinger {
		return false
	}
	w.eager.Add(1)
	defer w.eager.Add(-1)
	for began := clock(); clock()-began < lingerFor; {
		if w.closed.Load() || w.turn.Load()&turnOpen != 0 {
			return true
		}
		schedYield()
	}
	return false
}

// call sees to it that somebody takes the open lead; more lets the crew grow beyond
// its size.
func (c *conn) call(more bool) {
	switch w := &c.crew; {
	case w.eager.Load() > 0 && !more:
	case w.parked.Load() > 0:
		w.ring(1)
	case more || w.members.Load() < crewSize:
		c.hire(false)
	}
}

// hire adds a member.
func (c *conn) hire(leads bool) {
	c.crew.members.Add(1)
	c.members.Add(1)
	go c.member(leads)
}

// member serves until there is nothing more to read.
func (c *conn) member(leads bool) {
	x := newExecutor()
	for leads || c.crew.work() {
		leads = false
		if !c.lead(x) {
			break
		}
	}
	c.crew.members.Add(-1)
	c.members.Done()
}

// dismiss tells the members that there is nothing more to read. Only for the leader.
func (w *crew) dismiss() {
	w.closed.Store(true)
	w.ring(1 << 30)
}
