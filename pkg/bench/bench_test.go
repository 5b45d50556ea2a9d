package bench

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver"
)

func wantRows(t *testing.T, rep *Report, write bool) {
	t.Helper()
	var got []Work
	for _, r := range rep.Results {
		got = append(got, r.Work)
		if r.Ops == 0 || r.Time <= 0 || r.Latency.Count() != r.Ops || r.PerSecond() <= 0 || r.BytesPerSecond() <= 0 {
			t.Errorf("%+v: %d operations in %v, %d latencies", r.Work, r.Ops, r.Time, r.Latency.Count())
		}
	}
	if !slices.Equal(got, Works(write)) {
		t.Errorf("rows %v, want %v", got, Works(write))
	}
}

func TestReadsOnlyRead(t *testing.T) {
	for name, connections := range map[string]int{"one connection": 1, "four connections": 4} {
		t.Run(name, func(t *testing.T) {
			d := newWatched(8*mib, nil)
			cfg, _ := serve(t, d)
			cfg.Connections, cfg.Range = connections, 3*mib+block
			rep := mustRun(t, t.Context(), cfg)
			wantRows(t, rep, false)
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.writes > 0 || d.zeroed > 0 || d.furthest > cfg.Range {
				t.Errorf("%d writes, %d bytes zeroed, accessed up to %d of %d", d.writes, d.zeroed, d.furthest, cfg.Range)
			}
			if rep.Size != 8*mib || rep.Range != cfg.Range || rep.Looked != rep.Range || rep.Holes != 3*mib/2+block || rep.Interrupted || rep.Filled > 0 {
				t.Errorf("%+v", rep)
			}
		})
	}
}

// TestWritesChangeNothing: what is written is what was there, holes are holes
// again, and nothing outside the range is touched.
func TestWritesChangeNothing(t *testing.T) {
	for name, connections := range map[string]int{"one connection": 1, "three connections": 3} {
		t.Run(name, func(t *testing.T) {
			d := newWatched(64*mib, nil)
			before, holes := bytes.Clone(d.Bytes()), slices.Clone(d.holes)
			cfg, _ := serve(t, d)
			cfg.Write, cfg.Connections, cfg.Range = true, connections, 40*mib+block
			rep := mustRun(t, t.Context(), cfg)
			wantRows(t, rep, true)
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.changes > 0 || !bytes.Equal(before, d.Bytes()) {
				t.Errorf("%d writes changed contents", d.changes)
			}
			if !slices.Equal(holes, d.holes) {
				t.Error("holes are not what they were")
			}
			if want := int64(20*mib + block); rep.Holes != want || rep.Filled != want || rep.Kept != 0 || d.zeroed != want {
				t.Errorf("holes of %d bytes: filled %d, zeroed %d, kept %d; want %d", rep.Holes, rep.Filled, d.zeroed, rep.Kept, want)
			}
			if d.furthest > cfg.Range || d.writes == 0 {
				t.Errorf("%d writes, up to %d of %d", d.writes, d.furthest, cfg.Range)
			}
		})
	}
}

// TestAnotherClientStopsWrites: from the moment that another client is told of, nothing is written.
func TestAnotherClientStopsWrites(t *testing.T) {
	const (
		pieces  = 32 * mib / 2 / (64 << 10) // of holes: so many writes fill them
		batches = pieces / controlDepth
	)
	other := errors.New("another client")
	for name, c := range map[string]struct{ after, writes int }{
		"at the start":               {0, 0},
		"while holes are filled":     {1, 0},
		"in the middle of that":      {1 + 3, 3 * controlDepth},
		"before a row is written":    {1 + batches, pieces},
		"before a batch of a row is": {1 + batches + 1, pieces + batchBlocks},
	} {
		t.Run(name, func(t *testing.T) {
			d := newWatched(32*mib, nil)
			before := bytes.Clone(d.Bytes())
			cfg, _ := serve(t, d)
			asked := 0
			cfg.Write = true
			cfg.Alone = func(context.Context, int) error {
				if asked++; asked > c.after {
					return other
				}
				return nil
			}
			rep, err := Run(t.Context(), cfg)
			d.mu.Lock()
			defer d.mu.Unlock()
			if !errors.Is(err, other) || d.writes != c.writes || d.zeroed > 0 || !bytes.Equal(before, d.Bytes()) {
				t.Errorf("%v; %d writes, want %d; %d bytes zeroed", err, d.writes, c.writes, d.zeroed)
			}
			switch filled := d.RAM.Size()/2 - d.countHolesLocked(); {
			case c.after == 0 && rep != nil:
				t.Error("something was begun")
			case c.after > 0 && (rep.Kept != rep.Filled || rep.Kept != filled):
				t.Errorf("filled %d, kept %d of %d", rep.Filled, rep.Kept, filled)
			}
		})
	}
}

// TestHolesThatWereWrittenToAreKept: what another client wrote into a hole between two batches
// survives.
func TestHolesThatWereWrittenToAreKept(t *testing.T) {
	d := newWatched(4*mib, nil)
	cfg, _ := serve(t, d)
	cfg.Write = true
	cfg.Progress = func(p Progress) {
		if p.Step == "giving holes back" {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.Bytes()[5] = 7
		}
	}
	mustRun(t, t.Context(), cfg)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Bytes()[5] != 7 || d.changes > 0 {
		t.Error("lost")
	}
}

// TestInterrupted: whenever it comes, the contents stay, the holes come back, and what was measured is told.
func TestInterrupted(t *testing.T) {
	for name, at := range map[string]int{"while looking": 0, "while filling": 20, "in the first rows": 300, "later": 60_000} {
		t.Run(name, func(t *testing.T) {
			d := newWatched(32*mib, nil)
			before, holes := bytes.Clone(d.Bytes()), slices.Clone(d.holes)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := 0
			d.onRead = func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				if n++; n == at {
					cancel()
				}
			}
			cfg, _ := serve(t, d)
			cfg.Write, cfg.Time = true, time.Hour // only the interrupt ends it
			if at == 60_000 {
				cfg.Time = 50 * time.Millisecond // some rows are done before
			}
			if at == 0 {
				cfg.Alone = func(context.Context, int) error { cancel(); return nil }
			}
			rep := mustRun(t, ctx, cfg)
			d.mu.Lock()
			defer d.mu.Unlock()
			if !bytes.Equal(before, d.Bytes()) || d.changes > 0 || !slices.Equal(holes, d.holes) || rep.Kept > 0 {
				t.Errorf("%d writes changed contents, or holes did not come back: kept %d", d.changes, rep.Kept)
			}
			if at > 0 && at < 60_000 && !rep.Interrupted || at == 300 && len(rep.Results) != 1 || at < 300 && len(rep.Results) > 0 {
				t.Errorf("interrupted %v, %d rows", rep.Interrupted, len(rep.Results))
			}
		})
	}
}

// TestServerThatHangs: the interrupt ends a measurement whose requests are not
// answered any more.
func TestServerThatHangs(t *testing.T) {
	defer func(d time.Duration) { grace = d }(grace)
	grace = 20 * time.Millisecond
	faults := &blockdevtest.Faults{}
	gate := blockdevtest.NewGate()
	faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpRead | blockdevtest.OpReadNow, Skip: 100, Gate: gate})
	cfg, _ := serve(t, newWatched(32*mib, faults))
	defer gate.Open()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.Time = time.Hour
	cfg.Progress = func(Progress) { cancel() }
	rep := mustRun(t, ctx, cfg)
	if !rep.Interrupted || len(rep.Results) != 1 || rep.Results[0].Ops != 100 {
		t.Errorf("%+v", rep)
	}
}

func TestErrorsOfRequests(t *testing.T) {
	for name, c := range map[string]struct {
		kinds blockdevtest.Kind
		err   error
		want  nbd.Errno
		cmd   nbd.Command
	}{
		"read fails":       {blockdevtest.OpRead | blockdevtest.OpReadNow, blockdev.ErrIO, nbd.EIO, nbd.CmdRead},
		"no space":         {blockdevtest.OpWrite, blockdev.ErrNoSpace, nbd.ENOSPC, nbd.CmdWrite},
		"holes stay":       {blockdevtest.OpZero, blockdev.ErrIO, nbd.EIO, nbd.CmdWriteZeroes},
		"a write in a row": {blockdevtest.OpHalf, blockdev.ErrIO, nbd.EIO, nbd.CmdWrite},
	} {
		t.Run(name, func(t *testing.T) {
			faults := &blockdevtest.Faults{}
			d := newWatched(32*mib, faults)
			before := bytes.Clone(d.Bytes())
			cfg, _ := serve(t, d)
			cfg.Write = true
			skip := 0
			if c.kinds == blockdevtest.OpHalf {
				skip = 16 * 16 // after filling
			}
			faults.Add(blockdevtest.Rule{Kinds: c.kinds, Skip: skip, Err: c.err})
			rep, err := Run(t.Context(), cfg)
			var re *RequestError
			if !errors.As(err, &re) || re.Errno != c.want || re.Command != c.cmd || !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v of %v", err, c.want, c.cmd)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if !bytes.Equal(before, d.Bytes()) || rep == nil {
				t.Error("contents changed")
			}
			if c.cmd == nbd.CmdWriteZeroes && (rep.Kept == 0 || rep.Kept != rep.Filled) {
				t.Errorf("%+v", rep)
			}
		})
	}
}

func TestReadOnlyDisk(t *testing.T) {
	cfg, _ := serveExport(t, &nbdserver.Export{Name: "disk", Device: newWatched(32*mib, nil), ReadOnly: true,
		Locks: new(blockdev.RangeLock), Gate: new(nbdserver.Gate)})
	wantRows(t, mustRun(t, t.Context(), cfg), false)
	cfg.Write = true
	if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrReadOnly) {
		t.Errorf("writes: %v", err)
	}
}

func TestSmallDisk(t *testing.T) {
	cfg, _ := serve(t, newWatched(200<<10, nil))
	cfg.Write = true
	rep := mustRun(t, t.Context(), cfg)
	if len(rep.Results) != 6 { // without 1 MiB
		t.Errorf("%d rows", len(rep.Results))
	}
	for _, r := range rep.Results {
		if r.Block > 200<<10 {
			t.Errorf("a row of %d bytes", r.Block)
		}
	}
}

func TestDetachedMeanwhile(t *testing.T) {
	d := newWatched(8*mib, nil)
	cfg, e := serve(t, d)
	cfg.Time = time.Hour
	cfg.Progress = func(Progress) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := e.Gate.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	rep, err := Run(t.Context(), cfg)
	if err == nil || rep == nil || rep.Interrupted || len(rep.Results) != 1 {
		t.Errorf("%v, %+v", err, rep)
	}
}
