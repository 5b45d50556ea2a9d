package disk

import (
	"sync"
	"sync/atomic"
	"testing"

	"sealdisk/pkg/api"
)

// race runs n calls at once and returns how many succeeded; the others
// must have been refused for a conflict, or because what they wanted is gone.
func race(t *testing.T, n int, call func() error) int {
	t.Helper()
	var won atomic.Int32
	start := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			<-start
			switch err := call(); {
			case err == nil:
				won.Add(1)
			case api.ClassOf(err) != api.ClassConflict && api.ClassOf(err) != api.ClassNotFound:
				t.Errorf("refused with %v", err)
			}
		})
	}
	close(start)
	wg.Wait()
	return int(won.Load())
}

func TestManyCreationsOfOneName(t *testing.T) {
	b := newBench(t)
	if n := race(t, 16, func() error {
		_, err := b.Create(t.Context(), CreateOptions{Project: project, Name: "a", Size: 1 << 20, Encrypted: true})
		return err
	}); n != 1 {
		t.Fatalf("%d succeeded", n)
	}
	if l := b.List(project); len(l) != 1 {
		t.Fatalf("%d disks", len(l))
	}
	if _, err := b.Create(t.Context(), CreateOptions{Project: "other", Name: "a", Size: 1 << 20}); err != nil {
		t.Fatalf("the name is another one in another project: %v", err)
	}
}

// TestDiskWhoseKeyIsBeingMade is shown as being created, and left alone.
func TestDiskWhoseKeyIsBeingMade(t *testing.T) {
	b := newBench(t)
	release := b.keys.Hang()
	defer release()
	done := make(chan error)
	go func() {
		_, err := b.Create(t.Context(), CreateOptions{Project: project, Name: "a", Size: 4096, Encrypted: true})
		done <- err
	}()
	var list []Info
	b.until("listed", func() bool { list = b.List(project); return len(list) == 1 })
	if list[0].State != StateCreating {
		t.Fatalf("state %q", list[0].State)
	}
	_, err := b.Delete(project, list[0].ID)
	wantClass(t, err, api.ClassConflict)
	_, err = b.Attach(t.Context(), project, list[0].ID, AttachOptions{})
	wantClass(t, err, api.ClassConflict)
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestNothingIsStoredOfADeletedDisk: a late note (of a wish, of a failed sync) does not bring the
// record back.
func TestNothingIsStoredOfADeletedDisk(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	e := b.disks[d.ID]
	j, err := b.Delete(project, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	b.wait(j)
	wantClass(t, b.amend(e, func(*Record) {}), api.ClassNotFound)
	_, err = b.move(e, evDeleteFailed, nil)
	wantClass(t, err, api.ClassNotFound)
	b.expectNothing()
}

func TestAttachAndDetachManyTimesAtOnce(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	for range 5 {
		if n := race(t, 8, func() error {
			_, err := b.Attach(t.Context(), project, d.ID, AttachOptions{})
			return err
		}); n != 1 {
			t.Fatalf("attached %d times", n)
		}
		if n := race(t, 8, func() error { return b.Detach(t.Context(), project, d.ID) }); n != 1 {
			t.Fatalf("detached %d times", n)
		}
	}
}

func TestDeleteAgainstAttach(t *testing.T) {
	for range 10 {
		b := newBench(t)
		d := b.encrypted("a")
		var attached, deleted int
		var wg sync.WaitGroup
		wg.Go(func() {
			attached = race(t, 2, func() error {
				_, err := b.Attach(t.Context(), project, d.ID, AttachOptions{})
				return err
			})
		})
		wg.Go(func() {
			deleted = race(t, 2, func() error { _, err := b.Delete(project, d.ID); return err })
		})
		wg.Wait()
		if attached+deleted != 1 {
			t.Fatalf("attached %d, deleted %d", attached, deleted)
		}
		if attached == 1 {
			if _, err := b.Delete(project, d.ID); api.ClassOf(err) != api.ClassConflict {
				t.Fatalf("deleted while attached: %v", err)
			}
			if err := b.pub.get(d.ID).Device.WriteAt(make([]byte, 512), 0, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDetachUnderLoad: requests under way finish, and none reaches the device once it
// is closed.
func TestDetachUnderLoad(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	a := b.attach(d.ID)
	var wg sync.WaitGroup
	var done atomic.Int64
	started := make(chan struct{})
	var once sync.Once
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				b.pub.busy.RLock()
				if b.pub.get(d.ID) == nil {
					b.pub.busy.RUnlock()
					return
				}
				if err := a.Device.WriteAt(pattern(4096, byte(i)), int64(w)*65536, 0); err != nil {
					t.Errorf("write: %v", err)
				}
				b.pub.busy.RUnlock()
				done.Add(1)
				once.Do(func() { close(started) })
			}
		})
	}
	<-started
	b.detach(d.ID)
	wg.Wait()
	if done.Load() == 0 {
		t.Fatal("no load")
	}
	if err := a.Device.Flush(); err == nil {
		t.Fatal("the device is still open")
	}
}

func TestOperationsAfterClose(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	a := b.attach(d.ID)
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Device.Flush(); err == nil {
		t.Fatal("the device is still open")
	}
	if _, err := b.Attach(t.Context(), project, d.ID, AttachOptions{}); err == nil {
		t.Fatal("attached")
	}
	if _, err := b.Create(t.Context(), CreateOptions{Project: project, Name: "b", Size: 4096}); err == nil {
		t.Fatal("created")
	}
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
