package nbdserver

import (
	"sync/atomic"
	"time"
)

// pace tells whether writes to a disk are as fast as memory, so that the leader may run them.
// Where they are not, workers carry them out, many at a time; now and then the
// leader tries a few again.
type pace struct {
	score atomic.Int32 // rises with slow ones
	until atomic.Int64 // since boot, nanoseconds: the leader runs none before; 0: no such time
	hold  atomic.Int64 // how long the next time
}

const (
	slowWrite = 150 * time.Microsecond // longer than this, and 1 ns for each byte, is slow
	slowScore = 4                      // of a slow one; a fast one takes 1 off
	slowLimit = 16
	minHold   = 10 * time.Millisecond
	maxHold   = time.Second
)

// boot is when the clock of this package began.
var boot = time.Now()

func clock() time.Duration { return time.Since(boot) }

// fast reports whether the leader may run a write.
func (p *pace) fast() bool {
	until := p.until.Load()
	if until == 0 {
		return true
	}
	if int64(clock()) < until {
		return false
	}
	p.until.CompareAndSwap(until, 0)
	return true
}

// took tells how long the leader ran a write of n bytes.
func (p *pace) took(d time.Duration, n uint32) {
	switch {
	case d > slowWrite+time.Duration(n):
		if p.score.Add(slowScore) >= slowLimit {
			p.stuck()
		}
	case p.score.Load() > 0:
		p.score.Add(-1)
	case p.hold.Load() > 0:
		p.hold.Add(-int64(minHold) / 100)
	}
}

// stuck keeps writes from the leader for a while, for longer each time.
func (p *pace) stuck() {
	hold := min(max(2*p.hold.Load(), int64(minHold)), int64(maxHold))
	p.hold.Store(hold)
	p.score.Store(slowLimit - slowScore) // on trial afterwards: one slow one is enough
	p.until.Store(int64(clock()) + hold)
}
