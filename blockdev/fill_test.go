package blockdev_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"unsafe"

	"sealdisk/blockdev"
	bt "sealdisk/blockdev/blockdevtest"
)

func uintptrOf(p []byte) uintptr { return uintptr(unsafe.Pointer(&p[0])) }

// holey is a disk with data and holes on a recorder, and what it reads.
func holey(t testing.TB) (*blockdev.Crypt, *bt.Recorder, []byte) {
	t.Helper()
	rec := bt.NewRecorder(make([]byte, 3<<20))
	rec.Faults = &bt.Faults{}
	f, err := blockdev.NewFile(rec, blockdev.FileOptions{Offset: 4096, Discard: true})
	check(t, err)
	c, err := blockdev.NewCrypt(f, toy, blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true})
	check(t, err)
	want := make([]byte, c.Size())
	for off := int64(1 << 18); off < c.Size()-70000; off += 1<<18 + 512 {
		p := bytes.Repeat([]byte{byte(off>>18) + 1}, 70000)
		copy(want[off:], p)
		check(t, c.WriteAt(p, off, 0))
	}
	check(t, c.Flush())
	return c, rec, want
}

// reads opens what an image holds, honouring holes or not.
func reads(t testing.TB, image []byte, holes bool) []byte {
	t.Helper()
	f, err := blockdev.NewFile(bt.NewRecorder(image), blockdev.FileOptions{Offset: 4096})
	check(t, err)
	c, err := blockdev.NewCrypt(f, toy, blockdev.CryptOptions{SectorSize: 4096, Holes: holes})
	check(t, err)
	p := make([]byte, c.Size())
	check(t, c.ReadAt(p, 0))
	return p
}

func TestFillHoles(t *testing.T) {
	c, rec, want := holey(t)
	var last, total int64
	calls := 0
	check(t, blockdev.FillHoles(context.Background(), c, func(done, all int64) {
		if done <= last || done > all {
			t.Errorf("progress %d after %d of %d", done, last, all)
		}
		last, total = done, all
		calls++
	}))
	if last != c.Size() || total != c.Size() || calls < 2 {
		t.Errorf("progress ended at %d of %d after %d calls", last, total, calls)
	}
	for name, image := range map[string][]byte{
		"at once": rec.Image(), "after a power cut": rec.Crash(rec.Pos()).Oldest(),
	} {
		for _, holes := range []bool{true, false} {
			if !bytes.Equal(reads(t, image, holes), want) {
				t.Errorf("%s, holes honoured %v: reads otherwise", name, holes)
			}
		}
	}
	// Nothing is left to do.
	before := rec.Faults.Count(bt.OpWrite)
	check(t, blockdev.FillHoles(context.Background(), c, nil))
	if n := rec.Faults.Count(bt.OpWrite) - before; n != 0 {
		t.Errorf("a second run wrote %d times", n)
	}
}

// TestFillHolesPowerCut: cut anywhere, the disk reads as before, and a second
// run finishes.
func TestFillHolesPowerCut(t *testing.T) {
	c, rec, want := holey(t)
	begin := rec.Pos()
	check(t, blockdev.FillHoles(context.Background(), c, nil))
	rng := bt.Rand(bt.Seed(t, 1))
	for range 20 {
		pos := begin + rng.IntN(rec.Pos()-begin)
		image := rec.Crash(pos).Pick(rng)
		if !bytes.Equal(reads(t, image, true), want) {
			t.Fatalf("after a power cut at %d the disk reads otherwise", pos)
		}
		again := bt.NewRecorder(image)
		f, err := blockdev.NewFile(again, blockdev.FileOptions{Offset: 4096})
		check(t, err)
		c, err := blockdev.NewCrypt(f, toy, blockdev.CryptOptions{SectorSize: 4096, Holes: true})
		check(t, err)
		check(t, blockdev.FillHoles(context.Background(), c, nil))
		if !bytes.Equal(reads(t, again.Crash(again.Pos()).Oldest(), false), want) {
			t.Fatalf("finished after a power cut at %d, it reads otherwise without holes", pos)
		}
	}
}

func TestFillHolesStops(t *testing.T) {
	c, rec, want := holey(t)
	ctx, cancel := context.WithCancel(context.Background())
	err := blockdev.FillHoles(ctx, c, func(done, _ int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if !bytes.Equal(reads(t, rec.Image(), true), want) {
		t.Error("cancelled: reads otherwise")
	}
	rec.Space = 600
	if err := blockdev.FillHoles(context.Background(), c, nil); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("full: %v, want ErrNoSpace", err)
	}
	if !bytes.Equal(reads(t, rec.Image(), true), want) {
		t.Error("full: reads otherwise")
	}
	rec.Space = 0
	rec.Faults.Add(bt.Rule{Kinds: bt.OpSync, Err: errors.New("gone")})
	if err := blockdev.FillHoles(context.Background(), c, nil); !errors.Is(err, blockdev.ErrSyncFailed) {
		t.Errorf("failed sync: %v, want ErrSyncFailed", err)
	}
}
