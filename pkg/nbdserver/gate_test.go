package nbdserver

import (
	"context"
	"errors"
	"sync"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// held starts a write that stays in the device until the gate opens.
func held(faults *blockdevtest.Faults, c *nbdtest.Client) (*nbdtest.Call, *blockdevtest.Gate) {
	gate := blockdevtest.NewGate()
	faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpWrite, Times: 1, Gate: gate})
	call := c.Start(nbd.CmdWrite, 0, 0, 0, pattern(4096, 7))
	gate.Arrived()
	return call, gate
}

// closing begins Gate.Close and returns once it has taken effect.
func closing(t *testing.T, g *Gate, ctx context.Context) chan error {
	t.Helper()
	done := make(chan error, 1)
	before := g.Closed()
	go func() { done <- g.Close(ctx) }()
	for !before && !g.Closed() { // Close's first step
	}
	return done
}

func TestDetachDrains(t *testing.T) {
	dev, faults := ram(mib)
	r := newRig(t, Config{}, dev)
	a, b := r.connect(false), r.connect(true)
	raw := r.greet()
	call, gate := held(faults, a)
	waiting := b.Start(nbd.CmdRead, 0, 0, 4096, nil) // has arrived, waits for the write
	if _, err := b.Do(nbd.CmdRead, 0, 8192, 4096, nil); err != nil {
		t.Fatal(err)
	}
	done := closing(t, r.export.Gate, context.Background())

	for _, c := range []*nbdtest.Client{a, b} {
		for _, cmd := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite, nbd.CmdTrim, nbd.CmdCache} {
			if _, err := c.Do(cmd, 0, 8192, 512, make([]byte, 512)); err != nbd.ESHUTDOWN {
				t.Errorf("new %v: %v, want ESHUTDOWN", cmd, err)
			}
		}
		if _, err := c.Do(nbd.CmdFlush, 0, 0, 0, nil); err != nbd.ESHUTDOWN {
			t.Errorf("new FLUSH: %v", err)
		}
	}
	if all, err := raw.Ask(nbd.OptGo, nbdtest.InfoData("disk")); err != nil || told(all) != "ERR_SHUTDOWN" {
		t.Errorf("GO: %s, %v", told(all), err)
	}
	select {
	case err := <-done:
		t.Fatalf("Close returned %v with a write under way", err)
	default:
	}
	gate.Open()
	if err := call.Wait(); err != nil {
		t.Errorf("the write under way: %v", err)
	}
	if err := waiting.Wait(); err != nil || waiting.Data[0] != pattern(1, 7)[0] {
		t.Errorf("the read that had arrived: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Close: %v", err)
	}
	for _, c := range []*nbdtest.Client{a, b} {
		if err := c.Closed(); err != nil {
			t.Errorf("connection: %v", err)
		}
	}
	if n := r.export.Gate.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
	// Somebody changed his mind.
	r.export.Gate.Open()
	if all, err := raw.Ask(nbd.OptGo, nbdtest.InfoData("disk")); err != nil || told(all) != "INFO:EXPORT ACK" {
		t.Errorf("GO after Open: %s, %v", told(all), err)
	}
	if _, err := r.connect(true).Do(nbd.CmdRead, 0, 0, 512, nil); err != nil {
		t.Error(err)
	}
}

func TestDetachDeadline(t *testing.T) {
	dev, faults := ram(mib)
	r := newRig(t, Config{}, dev)
	a := r.connect(false)
	call, gate := held(faults, a)
	queued := a.Start(nbd.CmdWrite, 0, 0, 0, pattern(4096, 8)) // behind it
	if _, err := a.Do(nbd.CmdRead, 0, 8192, 512, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := closing(t, r.export.Gate, ctx)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	if call.Wait() == nil || queued.Wait() == nil {
		t.Error("replies on a connection that was cut")
	}
	if r.export.Gate.Connections() != 1 {
		t.Error("the request in the device is not counted any more")
	}
	again := closing(t, r.export.Gate, context.Background())
	gate.Open()
	if err := <-again; err != nil {
		t.Errorf("Close again: %v", err)
	}
	if n := faults.Count(blockdevtest.OpWrite); n != 1 {
		t.Errorf("%d writes: what had not begun was not dropped", n)
	}
}

// TestClosedGate: who comes between the look at the gate and the step through it stays
// outside.
func TestClosedGate(t *testing.T) {
	var g Gate
	if err := g.join(new(conn)); err != nil || g.Connections() != 1 {
		t.Errorf("an open gate: %v, %d connections", err, g.Connections())
	}
	g.active.Or(gateClosed)
	if err := g.join(new(conn)); !errors.Is(err, ErrDetaching) || g.Connections() != 1 {
		t.Errorf("a closed gate: %v, %d connections", err, g.Connections())
	}
	if g.enter() || g.active.Load() != gateClosed {
		t.Error("a closed gate let a request in, or counts it")
	}
}

// TestDetachGivenUp: Open ends a Close that still waits, and the connections go on.
func TestDetachGivenUp(t *testing.T) {
	dev, faults := ram(mib)
	r := newRig(t, Config{}, dev)
	a := r.connect(false)
	call, gate := held(faults, a)
	done := closing(t, r.export.Gate, context.Background())
	r.export.Gate.Open()
	if err := <-done; !errors.Is(err, ErrReopened) {
		t.Errorf("Close: %v", err)
	}
	gate.Open()
	if err := call.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := a.Do(nbd.CmdRead, 0, 0, 512, nil); err != nil {
		t.Error(err)
	}
}

// TestDetachUnderLoad: once Close returned, nobody uses the device.
func TestDetachUnderLoad(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		dev, faults := ram(mib)
		r := newRig(t, cfg, dev)
		var wg sync.WaitGroup
		busy := make(chan struct{}, 100)
		for i := range 4 {
			c := r.connect(i%2 == 0)
			for j := range 8 {
				wg.Go(func() {
					for k := 0; ; k++ {
						cmd := []nbd.Command{nbd.CmdRead, nbd.CmdWrite, nbd.CmdTrim, nbd.CmdFlush, nbd.CmdWriteZeroes}[(j+k)%5]
						var off uint64
						var length uint32
						if cmd != nbd.CmdFlush {
							off, length = uint64(k%64)*4096, 8192
						}
						if _, err := c.Do(cmd, 0, off, length, make([]byte, length)); err != nil {
							return
						}
						if k == 10 {
							busy <- struct{}{}
						}
					}
				})
			}
		}
		for range 32 {
			<-busy
		}
		if err := r.export.Gate.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		ops := faults.Count(^blockdevtest.Kind(0))
		wg.Wait()
		if n := faults.Count(^blockdevtest.Kind(0)); n != ops {
			t.Errorf("%d operations after Close", n-ops)
		}
	})
}

func TestDiscDrains(t *testing.T) {
	dev, faults := ram(mib)
	r := newRig(t, Config{}, dev)
	c := r.connect(false)
	call, gate := held(faults, c)
	c.Start(nbd.CmdDisc, 0, 0, 0, nil)
	gate.Open()
	if err := call.Wait(); err != nil {
		t.Errorf("request before DISC: %v", err)
	}
	if err := c.Closed(); err != nil {
		t.Error(err)
	}
}

func TestShutdownDrains(t *testing.T) {
	dev, faults := ram(mib)
	r := newRig(t, Config{}, dev)
	c := r.connect(false)
	call, gate := held(faults, c)
	done := make(chan error, 1)
	go func() { done <- r.srv.Shutdown(context.Background()) }()
	if err := <-r.served; !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v with a write under way", err)
	default:
	}
	gate.Open()
	if err := call.Wait(); err != nil {
		t.Errorf("request under way: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := c.Closed(); err != nil {
		t.Error(err)
	}
}

func TestShutdownDeadline(t *testing.T) {
	dev, faults := ram(mib)
	r := newRig(t, Config{}, dev)
	c := r.connect(false)
	call, gate := held(faults, c)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if call.Wait() == nil {
		t.Error("a reply on a connection that was cut")
	}
	gate.Open()
}

// TestSlowRequestsStopNobody: while writes, a flush and a read are stuck in
// the device, the same connection is served on.
func TestSlowRequestsStopNobody(t *testing.T) {
	for _, p := range []Path{PathAuto, PathWorker} {
		dev, faults := ram(mib)
		r := newRig(t, Config{Path: p}, dev)
		c := r.connect(true)
		gate := blockdevtest.NewGate()
		faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpWrite | blockdevtest.OpSync | blockdevtest.OpPunch | blockdevtest.OpRead, Off: 0, Len: 64 * kib, Gate: gate})
		faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpReadNow, Off: 0, Len: 64 * kib, Err: blockdev.ErrWouldBlock})
		faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpSync, Times: 1, Gate: gate})
		slow := []*nbdtest.Call{
			c.Start(nbd.CmdWrite, 0, 0, 0, make([]byte, 512)),
			c.Start(nbd.CmdRead, 0, 4096, 512, nil),
			c.Start(nbd.CmdTrim, 0, 8192, 4096, nil),
			c.Start(nbd.CmdFlush, 0, 0, 0, nil),
		}
		for range slow {
			gate.Arrived()
		}
		for i := range 100 {
			off := uint64(128*kib + i*4096)
			if err := c.Start(nbd.CmdWrite, 0, off, 0, pattern(4096, byte(i))).Wait(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Do(nbd.CmdRead, 0, off, 4096, nil); err != nil {
				t.Fatal(err)
			}
		}
		gate.Open()
		for _, call := range slow {
			if err := call.Wait(); err != nil {
				t.Error(err)
			}
		}
	}
}
