package disk

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/pkg/api"
)

// sickStorage fails its syncs with err once it is set.
type sickStorage struct {
	blockdev.Storage
	err *atomic.Pointer[syscall.Errno]
}

func (s *sickStorage) Sync() error {
	if e := s.err.Load(); e != nil {
		return *e
	}
	return s.Storage.Sync()
}

func (s *sickStorage) PwriteSync(p []byte, off int64) (int, error) {
	if e := s.err.Load(); e != nil {
		return 0, *e
	}
	return s.Storage.PwriteSync(p, off)
}

func (b *bench) sicken() *atomic.Pointer[syscall.Errno] {
	var e atomic.Pointer[syscall.Errno]
	b.storage = func(s blockdev.Storage) blockdev.Storage { return &sickStorage{s, &e} }
	return &e
}

func errnoPtr(e syscall.Errno) *syscall.Errno { return &e }

func TestFailedSyncIsRemembered(t *testing.T) {
	for name, write := range map[string]func(blockdev.Device) error{
		"flush":     func(d blockdev.Device) error { return d.Flush() },
		"FUA":       func(d blockdev.Device) error { return d.WriteAt(make([]byte, 4096), 0, blockdev.FUA) },
		"on detach": func(blockdev.Device) error { return blockdev.ErrSyncFailed },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d := b.encrypted("a")
			sick := b.sicken()
			a := b.attach(d.ID)
			if err := a.Device.WriteAt(pattern(4096, 1), 0, 0); err != nil {
				t.Fatal(err)
			}
			sick.Store(errnoPtr(syscall.EIO))
			if err := write(a.Device); !errors.Is(err, blockdev.ErrSyncFailed) {
				t.Fatalf("got %v", err)
			}
			if name != "on detach" {
				b.until("recorded while attached", func() bool { return b.show(d.ID).SyncFailed != nil })
				r, _, err := b.catalog.Load()
				if err != nil || r[0].SyncFailed == nil {
					t.Fatalf("not durable: %+v, %v", r[0], err)
				}
			}
			err := b.Detach(t.Context(), project, d.ID)
			if e := wantClass(t, err, api.ClassInternal); !strings.Contains(e.Message, "detached") || !strings.Contains(e.Hint, "--accept-data-loss") {
				t.Fatalf("%+v", e)
			}
			if i := b.show(d.ID); i.State != StateAvailable || i.SyncFailed == nil {
				t.Fatalf("%+v", i)
			}
			sick.Store(nil)
			b.restart(thisBoot)
			_, err = b.Attach(t.Context(), project, d.ID, AttachOptions{})
			if e := wantClass(t, err, api.ClassConflict); !strings.Contains(e.Hint, "--accept-data-loss") {
				t.Fatalf("%+v", e)
			}
			_, err = b.Finalize(t.Context(), project, d.ID)
			wantClass(t, err, api.ClassConflict)
			if _, err := b.Attach(t.Context(), project, d.ID, AttachOptions{AcceptDataLoss: true}); err != nil {
				t.Fatal(err)
			}
			b.detach(d.ID)
			b.attach(d.ID) // accepted once is enough
		})
	}
}

// TestAcceptedLossThatIsNotAttached: a failed attach does not use up the acceptance.
func TestAcceptedLossThatIsNotAttached(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	sick := b.sicken()
	a := b.attach(d.ID)
	sick.Store(errnoPtr(syscall.EIO))
	if err := a.Device.Flush(); !errors.Is(err, blockdev.ErrSyncFailed) {
		t.Fatal(err)
	}
	wantClass(t, b.Detach(t.Context(), project, d.ID), api.ClassInternal)
	sick.Store(nil)
	b.pub.err = errors.New("no socket")
	_, err := b.Attach(t.Context(), project, d.ID, AttachOptions{AcceptDataLoss: true})
	wantClass(t, err, api.ClassInternal)
	b.pub.err = nil
	_, err = b.Attach(t.Context(), project, d.ID, AttachOptions{})
	wantClass(t, err, api.ClassConflict)
}

// TestFullStorageIsNoLostSync: ENOSPC on a write through is the writer's error only.
func TestFullStorageIsNoLostSync(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.storage = func(s blockdev.Storage) blockdev.Storage { return &fullStorage{s} }
	a := b.attach(d.ID)
	if err := a.Device.WriteAt(make([]byte, 4096), 0, blockdev.FUA); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Fatalf("got %v", err)
	}
	b.detach(d.ID)
	if f := b.show(d.ID).SyncFailed; f != nil {
		t.Fatalf("recorded as lost: %+v", f)
	}
}

type fullStorage struct{ blockdev.Storage }

func (fullStorage) PwriteSync([]byte, int64) (int, error) { return 0, syscall.ENOSPC }

func TestCreateWithoutSpaceCleansUp(t *testing.T) {
	b := newBench(t)
	b.storage = func(s blockdev.Storage) blockdev.Storage { return &noRoom{s} }
	j, err := b.Create(t.Context(), CreateOptions{Project: project, Name: "a", Size: 1 << 20, Encrypted: true, NoDiscard: true})
	if err != nil {
		t.Fatal(err)
	}
	if j = b.wait(j); j.Status != JobFail || j.FailClass != api.ClassNoSpace || j.FailCode != api.CodeQuota {
		t.Fatalf("%+v", j)
	}
	i := b.show(j.DiskID)
	if i.State != StateError || i.Reason == "" {
		t.Fatalf("%+v", i)
	}
	_, err = b.Attach(t.Context(), project, i.ID, AttachOptions{})
	wantClass(t, err, api.ClassConflict)
	if j, err = b.Delete(project, i.ID); err != nil {
		t.Fatal(err)
	}
	b.wait(j)
	b.expectNothing()
}

type noRoom struct{ blockdev.Storage }

func (noRoom) Pwrite([]byte, int64) (int, error) { return 0, syscall.ENOSPC }
