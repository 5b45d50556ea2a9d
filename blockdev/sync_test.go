package blockdev_test

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"

	"sealdisk/blockdev"
	bt "sealdisk/blockdev/blockdevtest"
)

// onRecorder is a File on a recorder with faults.
func onRecorder(t testing.TB, opt blockdev.FileOptions) (*blockdev.File, *bt.Recorder) {
	t.Helper()
	rec := bt.NewRecorder(bytes.Repeat([]byte{1}, 65536))
	rec.Faults = &bt.Faults{}
	opt.Discard = true
	f, err := blockdev.NewFile(rec, opt)
	check(t, err)
	return f, rec
}

// TestFlushSharesLaterSync: a Flush never joins the sync that is under way when
// it arrives, and those that wait share the next one.
func TestFlushSharesLaterSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, rec := onRecorder(t, blockdev.FileOptions{})
		first := bt.NewGate()
		rec.Faults.Add(bt.Rule{Kinds: bt.OpSync, Times: 1, Gate: first})
		returned := make(chan int, 10)
		flush := func(id int) {
			go func() {
				if err := f.Flush(); err != nil {
					t.Error(err)
				}
				returned <- id
			}()
		}
		flush(0)
		first.Arrived()
		for id := 1; id <= 5; id++ {
			flush(id)
		}
		synctest.Wait() // all five wait
		if n := rec.Faults.Count(bt.OpSync); n != 1 || len(returned) != 0 {
			t.Fatalf("%d syncs begun and %d flushes returned while the first sync is under way", n, len(returned))
		}
		second := bt.NewGate()
		rec.Faults.Add(bt.Rule{Kinds: bt.OpSync, Skip: 0, Gate: second})
		first.Open()
		second.Arrived()
		synctest.Wait()
		if len(returned) != 1 || <-returned != 0 {
			t.Fatal("the first sync released more than the first flush: the others were not covered by it")
		}
		second.Open()
		synctest.Wait()
		if len(returned) != 5 {
			t.Fatalf("%d of 5 flushes returned after the second sync", len(returned))
		}
		if n := rec.Faults.Count(bt.OpSync); n != 2 {
			t.Errorf("%d syncs, want the five to share one", n)
		}
	})
}

// changes are all ways to change a device or make it durable.
var changes = map[string]func(blockdev.Device) error{
	"write":       func(d blockdev.Device) error { return d.WriteAt(bytes.Repeat([]byte{2}, 512), 0, 0) },
	"write FUA":   func(d blockdev.Device) error { return d.WriteAt(bytes.Repeat([]byte{2}, 512), 0, blockdev.FUA) },
	"write edge":  func(d blockdev.Device) error { return d.WriteAt([]byte{2}, 0, 0) },
	"trim":        func(d blockdev.Device) error { return d.Trim(4096, 4096, 0) },
	"trim FUA":    func(d blockdev.Device) error { return d.Trim(4096, 4096, blockdev.FUA) },
	"zeroes":      func(d blockdev.Device) error { return d.WriteZeroes(4096, 4096, 0) },
	"zeroes FUA":  func(d blockdev.Device) error { return d.WriteZeroes(4096, 4096, blockdev.FUA) },
	"zeroes edge": func(d blockdev.Device) error { return d.WriteZeroes(4096, 10, 0) },
	"flush":       func(d blockdev.Device) error { return d.Flush() },
}

// TestFailedSyncIsSticky: after a sync failed, whichever request met it, every
// change and flush fails, though the storage would succeed now; reads go on.
func TestFailedSyncIsSticky(t *testing.T) {
	for name, fail := range changes {
		switch name {
		case "flush", "write FUA", "trim FUA", "zeroes FUA":
		default:
			continue
		}
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT} {
			for _, dsync := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%v/dsync=%v", name, errno, dsync), func(t *testing.T) {
					var told []error
					f, rec := onRecorder(t, blockdev.FileOptions{OnSyncError: func(err error) { told = append(told, err) }})
					if !dsync {
						rec.Faults.Add(bt.Rule{Kinds: bt.OpWriteSync, Err: syscall.EOPNOTSUPP})
					}
					rec.Faults.Add(bt.Rule{Kinds: bt.OpSync, Times: 1, Err: errno})
					rec.Faults.Add(bt.Rule{Kinds: bt.OpWriteSync, Times: 1, Err: errno})
					c, err := blockdev.NewCrypt(f, bt.Cipher(1), blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true})
					check(t, err)
					d := blockdev.Serialize(c)
					if err := d.(blockdev.SyncReporter).SyncErr(); err != nil {
						t.Fatalf("SyncErr before: %v", err)
					}
					if err := fail(d); !errors.Is(err, blockdev.ErrSyncFailed) || !errors.Is(err, errno) {
						t.Fatalf("the request whose sync failed: %v, want ErrSyncFailed and %v", err, errno)
					}
					if len(told) != 1 || !errors.Is(told[0], blockdev.ErrSyncFailed) {
						t.Errorf("when the request returned, OnSyncError had been told of %v", told)
					}
					for name, change := range changes {
						if err := change(d); !errors.Is(err, blockdev.ErrSyncFailed) {
							t.Errorf("%s afterwards: %v, want ErrSyncFailed", name, err)
						}
					}
					check(t, d.ReadAt(make([]byte, 700), 100))
					check(t, d.(blockdev.NowReader).ReadNow(make([]byte, 512), 512))
					if err := d.(blockdev.SyncReporter).SyncErr(); !errors.Is(err, blockdev.ErrSyncFailed) || !errors.Is(err, errno) {
						t.Errorf("SyncErr: %v", err)
					}
					if err := d.Close(); !errors.Is(err, blockdev.ErrSyncFailed) {
						t.Errorf("Close: %v, want ErrSyncFailed", err)
					}
					if len(told) != 1 {
						t.Errorf("OnSyncError was called %d times", len(told))
					}
					if err := d.(blockdev.SyncReporter).SyncErr(); !errors.Is(err, blockdev.ErrSyncFailed) {
						t.Errorf("SyncErr after Close: %v", err)
					}
				})
			}
		}
	}
}

// TestFailedSyncFailsAllWhoShareIt: also those who wait for the next one.
func TestFailedSyncFailsAllWhoShareIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, rec := onRecorder(t, blockdev.FileOptions{})
		gate := bt.NewGate()
		rec.Faults.Add(bt.Rule{Kinds: bt.OpSync, Times: 1, Gate: gate, Err: syscall.EIO})
		errs := make(chan error, 4)
		for range 4 {
			go func() { errs <- f.Flush() }()
		}
		synctest.Wait()
		gate.Open()
		for range 4 {
			if err := <-errs; !errors.Is(err, blockdev.ErrSyncFailed) {
				t.Errorf("a flush returned %v, want ErrSyncFailed", err)
			}
		}
	})
}

// TestWriteThroughWithoutSpaceIsNotSticky: no space for a FUA write, and a sync
// tells that nothing was lost.
func TestWriteThroughWithoutSpaceIsNotSticky(t *testing.T) {
	f, rec := onRecorder(t, blockdev.FileOptions{})
	rec.Faults.Add(bt.Rule{Kinds: bt.OpWriteSync, Times: 1, Err: syscall.ENOSPC})
	if err := changes["write FUA"](f); !errors.Is(err, blockdev.ErrNoSpace) || errors.Is(err, blockdev.ErrSyncFailed) {
		t.Fatalf("%v, want ErrNoSpace alone", err)
	}
	for name, change := range changes {
		if err := change(f); err != nil {
			t.Errorf("%s afterwards: %v", name, err)
		}
	}
}

// TestInterruptedCalls: EINTR is nobody's business.
func TestInterruptedCalls(t *testing.T) {
	for _, dsync := range []bool{true, false} {
		f, rec := onRecorder(t, blockdev.FileOptions{})
		if !dsync {
			rec.Faults.Add(bt.Rule{Kinds: bt.OpWriteSync, Err: syscall.EOPNOTSUPP})
		}
		for name, change := range changes {
			for _, k := range []bt.Kind{bt.OpRead, bt.OpWrite, bt.OpWriteSync, bt.OpPunch, bt.OpZero, bt.OpSync} {
				rec.Faults.Add(bt.Rule{Kinds: k, Times: 2, Err: syscall.EINTR})
			}
			if err := change(f); err != nil {
				t.Errorf("%s interrupted: %v", name, err)
			}
			check(t, f.ReadAt(make([]byte, 100), 5))
		}
	}
}
