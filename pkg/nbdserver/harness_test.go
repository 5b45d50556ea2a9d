package nbdserver

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// Sizes used all over the tests.
const (
	kib = 1 << 10
	mib = 1 << 20
)

// table is an Exports with fixed contents.
type table struct {
	mu      sync.Mutex
	exports map[string]*Export
	order   []string
	denied  map[string]bool // looks like unknown
	peers   []Peer
	longest int // name that was asked for
}

func (x *table) Open(p Peer, name string) (*Export, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.peers = append(x.peers, p)
	x.longest = max(x.longest, len(name))
	if name == "" && len(x.order) > 0 {
		name = x.order[0]
	}
	if e := x.exports[name]; e != nil && !x.denied[name] {
		return e, nil
	}
	return nil, ErrUnknownExport
}

func (x *table) List(Peer) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var names []string
	for _, n := range x.order {
		if !x.denied[n] {
			names = append(names, n)
		}
	}
	return names
}

func (x *table) add(e *Export) {
	x.exports[e.Name] = e
	x.order = append(x.order, e.Name)
}

// rig is a running server with one export, "disk", and a way to connect.
type rig struct {
	t      testing.TB
	srv    *Server
	l      *nbdtest.Listener
	table  *table
	export *Export
	served chan error
}

func newExport(name string, dev blockdev.Device) *Export {
	return &Export{Name: name, Description: "a test disk", Device: dev, Locks: new(blockdev.RangeLock), Gate: new(Gate)}
}

// newRig starts a server; the test ends with its shutdown, which must leave
// nothing behind.
func newRig(t testing.TB, cfg Config, dev blockdev.Device) *rig {
	t.Helper()
	r := &rig{
		t: t, srv: New(cfg, zap.NewNop()), l: nbdtest.NewListener(), served: make(chan error, 1),
		table: &table{exports: map[string]*Export{}, denied: map[string]bool{}},
	}
	r.export = newExport("disk", dev)
	r.table.add(r.export)
	go func() { r.served <- r.srv.Serve(r.l, r.table) }()
	t.Cleanup(r.stop)
	return r
}

// stop shuts the server down and checks that nothing is left.
func (r *rig) stop() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := r.srv.Shutdown(ctx); err != nil {
		r.t.Errorf("shutdown: %v", err)
		return
	}
	r.table.mu.Lock()
	longest := r.table.longest
	r.table.mu.Unlock()
	if longest > nbd.MaxString {
		r.t.Errorf("a name of %d bytes got as far as Exports", longest)
	}
	m := r.srv.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pool != 0 || m.shares != 0 || len(m.waiting) != 0 {
		r.t.Errorf("memory after shutdown: pool %d, shares %d, waiting %d", m.pool, m.shares, len(m.waiting))
	}
	for kind, blk := range m.arena.cut {
		if blk != nil {
			r.t.Errorf("pieces of %d bytes are still out", minPiece<<kind)
		}
	}
	if n := r.export.Gate.Connections(); n != 0 {
		r.t.Errorf("%d connections at the gate after shutdown", n)
	}
	if n := r.export.Gate.active.Load() &^ gateClosed; n != 0 {
		r.t.Errorf("%d requests at the gate after shutdown", n)
	}
}

func (r *rig) dial() *net.UnixConn {
	r.t.Helper()
	c, err := r.l.Dial()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// greet begins a handshake.
func (r *rig) greet() *nbdtest.Raw {
	r.t.Helper()
	raw, err := nbdtest.Greet(r.dial(), nbd.ClientFixedNewstyle|nbd.ClientNoZeroes)
	if err != nil {
		r.t.Fatal(err)
	}
	return raw
}

// connect makes a client of the export, with structured replies and metadata
// if all is set.
func (r *rig) connect(all bool) *nbdtest.Client {
	r.t.Helper()
	c, err := nbdtest.Connect(r.dial(), "disk", nbdtest.Features{Structured: all, Meta: all})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// waitConnections waits until the disk has n connections.
func (r *rig) waitConnections(n int) {
	r.t.Helper()
	g := r.export.Gate
	end := time.After(30 * time.Second)
	for {
		g.mu.Lock()
		have, change := len(g.conns), g.changeLocked()
		g.mu.Unlock()
		if have == n {
			return
		}
		select {
		case <-change:
		case <-end:
			r.t.Fatalf("%d connections are left, want %d", have, n)
		}
	}
}

// paths runs a test with everything on the reader, everything on workers, and
// as in production.
func paths(t *testing.T, run func(t *testing.T, cfg Config)) {
	for name, p := range map[string]Path{"auto": PathAuto, "inline": PathInline, "share": PathShare, "worker": PathWorker} {
		t.Run(name, func(t *testing.T) { run(t, Config{Path: p}) })
	}
}

// pattern is n bytes that depend on seed.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	const period = 128 * kib
	for i := range min(n, period) {
		p[i] = byte(i>>9) ^ byte(i) ^ seed
	}
	for i := period; i < n; i *= 2 {
		copy(p[i:], p[:i])
	}
	return p
}

func ram(size int64) (*blockdevtest.RAM, *blockdevtest.Faults) {
	f := &blockdevtest.Faults{}
	return blockdevtest.NewRAM(size, f), f
}
