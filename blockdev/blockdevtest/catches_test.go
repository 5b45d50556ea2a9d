package blockdevtest_test

import (
	"syscall"
	"testing"

	"sealdisk/blockdev"
	bt "sealdisk/blockdev/blockdevtest"
)

// broken is a File over a broken storage, or a broken device over a File.
type broken struct {
	name    string
	storage func(blockdev.Storage) blockdev.Storage
	device  func(blockdev.Device) blockdev.Device
	faults  bool
}

// caught tells whether power cuts under n schedules find anything.
func (b broken) caught(workers, n int) error {
	cut := bt.PowerCut{TrimZeros: true, Faults: b.faults, Workers: workers,
		Open: func(st blockdev.Storage) (blockdev.Device, error) {
			if b.storage != nil {
				st = b.storage(st)
			}
			f, err := blockdev.NewFile(st, blockdev.FileOptions{Discard: true})
			if err != nil || b.device == nil {
				return f, err
			}
			return b.device(f), nil
		}}
	for seed := range uint64(n) {
		if _, err := cut.Schedule(seed); err != nil {
			return err
		}
	}
	return nil
}

// lyingFlush acknowledges without a sync.
type lyingFlush struct{ blockdev.Device }

func (lyingFlush) Flush() error { return nil }

// noFUA and noZeroFUA lose a flag.
type noFUA struct{ blockdev.Device }

func (d noFUA) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	return d.Device.WriteAt(p, off, f&^blockdev.FUA)
}

type noZeroFUA struct{ blockdev.Device }

func (d noZeroFUA) WriteZeroes(off, n int64, f blockdev.Flags) error {
	return d.Device.WriteZeroes(off, n, f&^blockdev.FUA)
}

func (d noZeroFUA) Trim(off, n int64, f blockdev.Flags) error {
	return d.Device.Trim(off, n, f&^blockdev.FUA)
}

// earlySync syncs before the change in place of after.
type earlySync struct{ blockdev.Device }

func (d earlySync) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	if f&blockdev.FUA != 0 {
		if err := d.Flush(); err != nil {
			return err
		}
	}
	return d.Device.WriteAt(p, off, f&^blockdev.FUA)
}

// halves writes granules in two.
type halves struct{ blockdev.Storage }

func (s halves) Pwrite(p []byte, off int64) (int, error) {
	return s.Storage.Pwrite(p[:min(len(p), 256)], off)
}

// lostTrim forgets that the trimmed range was written.
type lostTrim struct{ blockdev.Device }

func (d lostTrim) Trim(int64, int64, blockdev.Flags) error { return nil }

// lateWrites writes late: only at the next flush, and not in the order of the
// requests.
type lateWrites struct {
	blockdev.Device
	late []func() error
}

func (d *lateWrites) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	if f != 0 || len(p) > 512 {
		return d.Device.WriteAt(p, off, f)
	}
	d.late = append(d.late, func() error { return d.Device.WriteAt(p, off, f) })
	return nil
}

func (d *lateWrites) Flush() error {
	for _, w := range d.late {
		if err := w(); err != nil {
			return err
		}
	}
	d.late = nil
	return d.Device.Flush()
}

// noSync is a storage whose syncs do nothing.
type noSync struct{ blockdev.Storage }

func (s noSync) Sync() error { return nil }

// retriedSync tries a failed sync again, which the kernel lets succeed.
type retriedSync struct{ blockdev.Storage }

func (s retriedSync) Sync() error {
	if err := s.Storage.Sync(); err == nil || err == syscall.EINTR {
		return err
	}
	return s.Storage.Sync()
}

// retriedWrite takes the data of a failed write-through for safe.
type retriedWrite struct{ blockdev.Storage }

func (s retriedWrite) PwriteSync(p []byte, off int64) (int, error) {
	n, err := s.Storage.PwriteSync(p, off)
	if err == syscall.EIO {
		return len(p), nil // the data is there, isn't it
	}
	return n, err
}

// TestPowerCutCatches: each way to break durability is found, and the File that
// is not broken is not blamed.
func TestPowerCutCatches(t *testing.T) {
	for _, b := range []broken{
		{name: "flush acknowledged without a sync", device: func(d blockdev.Device) blockdev.Device { return lyingFlush{d} }},
		{name: "FUA of writes ignored", device: func(d blockdev.Device) blockdev.Device { return noFUA{d} }},
		{name: "FUA of trims and zeroes ignored", device: func(d blockdev.Device) blockdev.Device { return noZeroFUA{d} }},
		{name: "sync before the write", device: func(d blockdev.Device) blockdev.Device { return earlySync{d} }},
		{name: "granules written in halves", storage: func(s blockdev.Storage) blockdev.Storage { return halves{s} }},
		{name: "trim that does nothing", device: func(d blockdev.Device) blockdev.Device { return lostTrim{d} }},
		{name: "writes kept back", device: func(d blockdev.Device) blockdev.Device { return &lateWrites{Device: d} }},
		{name: "storage that doesn't sync", storage: func(s blockdev.Storage) blockdev.Storage { return noSync{s} }},
		{name: "failed sync tried again", faults: true, storage: func(s blockdev.Storage) blockdev.Storage { return retriedSync{s} }},
		{name: "failed write-through ignored", faults: true, storage: func(s blockdev.Storage) blockdev.Storage { return retriedWrite{s} }},
	} {
		t.Run(b.name, func(t *testing.T) {
			err := b.caught(1, 300)
			if err == nil {
				t.Fatal("not caught in 300 schedules")
			}
			t.Logf("caught: %.200s", err)
		})
	}
	for _, faults := range []bool{false, true} {
		for _, workers := range []int{1, 3} {
			if err := (broken{faults: faults}).caught(workers, 300); err != nil {
				t.Errorf("sound File, faults %v, %d workers: %v", faults, workers, err)
			}
		}
	}
}
