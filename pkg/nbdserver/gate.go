package nbdserver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

var (
	// ErrDetaching is returned to whoever wants to use an export whose gate is
	// closed.
	ErrDetaching = errors.New("disk is being detached")
	// ErrReopened is returned by Gate.Close when the gate was opened again before all had left.
	ErrReopened = errors.New("the disk was put to use again")
)

// gateClosed is the bit of Gate.active that says so.
const gateClosed = 1 << 62

// Gate stands between the connections and one disk: it counts connections and
// requests and, once closed, lets no new ones in. The zero value is open. All
// methods may be called concurrently.
type Gate struct {
	active atomic.Int64 // requests between enter and leave, and gateClosed
	mu     sync.Mutex
	conns  map[*conn]struct{}
	change chan struct{} // closed and replaced when Close should look again
}

// Closed reports whether the gate is closed.
func (g *Gate) Closed() bool { return g.active.Load()&gateClosed != 0 }

// Connections is the number of connections that use the disk, dying ones with requests
// under way included.
func (g *Gate) Connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// Open lets connections and requests in again. A Close under way gives up.
func (g *Gate) Open() {
	g.active.And(^gateClosed)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tellLocked()
}

// Close refuses new connections, answers new requests with ESHUTDOWN, waits for
// those under way, sends their replies and closes the connections. It returns nil once no
// connection is left: then nobody uses the device. When ctx ends first, the connections are
// cut, the gate stays closed and ctx's error is returned; requests may still be under way.
// Calling it again goes on waiting. ErrReopened is returned when Open is called meanwhile.
func (g *Gate) Close(ctx context.Context) error {
	g.active.Or(gateClosed)
	asked := false
	for {
		g.mu.Lock()
		left, idle, change := len(g.conns), g.active.Load() == gateClosed, g.changeLocked()
		g.mu.Unlock()
		if !g.Closed() {
			return ErrReopened
		}
		if left == 0 && idle {
			return nil
		}
		if idle && !asked {
			asked = true
			for _, c := range g.all() {
				c.finish()
			}
		}
		select {
		case <-change:
		case <-ctx.Done():
			for _, c := range g.all() {
				c.kill()
			}
			return ctx.Err()
		}
	}
}

// all lists the connections, to be told something without g.mu: they may come
// back to the gate.
func (g *Gate) all() []*conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.conns))
}

func (g *Gate) changeLocked() chan struct{} {
	if g.change == nil {
		g.change = make(chan struct{})
	}
	return g.change
}

func (g *Gate) tellLocked() {
	if g.change != nil {
		close(g.change)
		g.change = nil
	}
}

// join registers c, or returns ErrDetaching.
func (g *Gate) join(c *conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Closed() {
		return ErrDetaching
	}
	if g.conns == nil {
		g.conns = make(map[*conn]struct{})
	}
	g.conns[c] = struct{}{}
	return nil
}

// part takes c out again.
func (g *Gate) part(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	g.tellLocked()
}

// enter begins a request; false when the gate is closed.
func (g *Gate) enter() bool {
	if g.active.Add(1)&gateClosed == 0 {
		return true
	}
	g.leave()
	return false
}

// leave ends a request.
func (g *Gate) leave() {
	if g.active.Add(-1) == gateClosed {
		g.mu.Lock()
		g.tellLocked()
		g.mu.Unlock()
	}
}
