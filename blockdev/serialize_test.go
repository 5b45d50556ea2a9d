package blockdev_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"sealdisk/blockdev"
	bt "sealdisk/blockdev/blockdevtest"
)

// halfWritten starts a write of 4096 bytes at 4096 that stops with half of them
// stored, until the gate opens.
func halfWritten(t *testing.T) (d blockdev.Device, gate *bt.Gate, faults *bt.Faults) {
	faults, gate = &bt.Faults{}, bt.NewGate()
	faults.Add(bt.Rule{Kinds: bt.OpHalf, Times: 1, Gate: gate})
	d = blockdev.Serialize(bt.NewRAM(65536, faults))
	go func() {
		if err := d.WriteAt(bytes.Repeat([]byte{2}, 4096), 4096, 0); err != nil {
			t.Error(err)
		}
	}()
	gate.Arrived()
	return d, gate, faults
}

// TestSerializeNoHalfWrittenGranule: who comes while a write is half done waits
// for the rest.
func TestSerializeNoHalfWrittenGranule(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(blockdev.Device, []byte) error
		want byte // what the write's last byte reads as in the end
	}{
		"read":        {func(d blockdev.Device, p []byte) error { return d.ReadAt(p, 4096) }, 2},
		"write":       {func(d blockdev.Device, p []byte) error { return d.WriteAt([]byte{3}, 8191, 0) }, 3},
		"trim":        {func(d blockdev.Device, p []byte) error { return d.Trim(7680, 512, 0) }, 0},
		"zero a byte": {func(d blockdev.Device, p []byte) error { return d.WriteZeroes(8191, 1, 0) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, gate, _ := halfWritten(t)
				p := make([]byte, 4096)
				done := make(chan error, 1)
				go func() { done <- c.do(d, p) }()
				synctest.Wait()
				if len(done) != 0 {
					t.Error("went on beside the half-written granule")
				}
				gate.Open()
				check(t, <-done)
				if name == "read" && !bytes.Equal(p, bytes.Repeat([]byte{2}, 4096)) {
					t.Error("read half of the write")
				}
				check(t, d.ReadAt(p, 4096))
				if p[4095] != c.want {
					t.Errorf("ends as %d, want %d: done in another order than asked", p[4095], c.want)
				}
			})
		})
	}
}

// TestSerializeReadNow: never waits, never sees half.
func TestSerializeReadNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, gate, _ := halfWritten(t)
		now := d.(blockdev.NowReader)
		if err := now.ReadNow(make([]byte, 1), 8191); !errors.Is(err, blockdev.ErrWouldBlock) {
			t.Errorf("ReadNow beside a write: %v, want ErrWouldBlock", err)
		}
		check(t, now.ReadNow(make([]byte, 1), 8192))
		gate.Open()
		synctest.Wait()
		check(t, now.ReadNow(make([]byte, 1), 8191))
	})
}

// TestSerializeOthersGoOn: one slow request holds up its own granules alone.
func TestSerializeOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, gate, _ := halfWritten(t)
		p := make([]byte, 512)
		check(t, d.ReadAt(p, 3584))
		check(t, d.ReadAt(p, 8192))
		check(t, d.WriteAt([]byte{1}, 4095, 0))
		check(t, d.WriteAt([]byte{1}, 8192, 0))
		check(t, d.Trim(0, 4096, 0))
		check(t, d.WriteZeroes(8192, 4096, 0))
		check(t, d.Flush())
		_, err := d.Extents(nil, 0, 65536, 1)
		check(t, err)
		gate.Open()
		synctest.Wait()
	})
}

// TestSerializeReadersTogether: reads of the same granule don't wait for each
// other.
func TestSerializeReadersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults, gate := &bt.Faults{}, bt.NewGate()
		faults.Add(bt.Rule{Kinds: bt.OpRead, Times: 1, Gate: gate})
		d := blockdev.Serialize(bt.NewRAM(65536, faults))
		go d.ReadAt(make([]byte, 4096), 0)
		gate.Arrived()
		check(t, d.ReadAt(make([]byte, 4096), 0))
		gate.Open()
		synctest.Wait()
	})
}

// TestSerializeKeepsEdgeAndNeighbour: a write of part of a granule, which reads
// it first, and an aligned one of the same granule: neither is lost.
func TestSerializeKeepsEdgeAndNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults, gate := &bt.Faults{}, bt.NewGate()
		faults.Add(bt.Rule{Kinds: bt.OpWrite, Times: 1, Gate: gate})
		c, err := blockdev.NewCrypt(bt.NewRAM(65536, faults), toy, blockdev.CryptOptions{SectorSize: 4096, Holes: true})
		check(t, err)
		d := blockdev.Serialize(c)
		go d.WriteAt([]byte{1, 1}, 700, 0) // has read its granule, is about to write it
		gate.Arrived()
		go d.WriteAt(bytes.Repeat([]byte{2}, 512), 512, 0)
		check(t, d.WriteAt(bytes.Repeat([]byte{3}, 512), 1024, 0)) // the neighbour, in the same sector
		synctest.Wait()
		gate.Open()
		synctest.Wait()
		got := make([]byte, 1024)
		check(t, d.ReadAt(got, 512))
		want := append(bytes.Repeat([]byte{2}, 512), bytes.Repeat([]byte{3}, 512)...)
		if !bytes.Equal(got, want) {
			t.Error("a write was lost")
		}
	})
}
