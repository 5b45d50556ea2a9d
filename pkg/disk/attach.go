package disk

import (
	"context"
	"errors"
	"time"

	"sealdisk/blockdev"
	"sealdisk/pkg/logfield"
)

// AttachOptions say who attaches a disk and how.
type AttachOptions struct {
	UID, GID uint32 // who; owns the disk's socket
	ReadOnly bool
	// AtBoot: attach the disk again after a reboot too.
	AtBoot bool
	// AcceptDataLoss: attach though a sync failed when the disk was attached last.
	AcceptDataLoss bool
}

// drainTime bounds how long a detach lets requests under way finish.
const drainTime = 30 * time.Second

// Attach attaches a disk: it gets the key, opens the data and publishes the disk. Whatever
// fails, all before it is undone and the disk is available again.
func (m *Manager) Attach(ctx context.Context, project, id string, o AttachOptions) (Info, error) {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	e, err := m.find(project, id)
	if err != nil {
		return Info{}, err
	}
	if err := m.attach(ctx, e, o); err != nil {
		return Info{}, err
	}
	return e.info(), nil
}

func (m *Manager) attach(ctx context.Context, e *entry, o AttachOptions) error {
	var accepted *SyncFailure
	r, err := m.move(e, evAttach, func(r *Record) error {
		accepted = r.SyncFailed
		if r.SyncFailed != nil && !o.AcceptDataLoss {
			return conflict("attach it with --accept-data-loss and check its contents (fsck)",
				"disk %s: a sync failed at %s, data may be lost (%s)", r.Name, r.SyncFailed.Time.Format(time.RFC3339), r.SyncFailed.Reason)
		}
		return nil
	})
	doing := "attach disk " + r.Name
	if err != nil {
		return apiError(doing, err, r)
	}
	s, err := m.openSession(ctx, r, o.ReadOnly, m.syncFailed(e))
	if err == nil {
		err = m.publish(e, s, o, accepted)
	}
	if err != nil {
		failed := apiError(doing, err, r)
		m.settle(e, evAttachUndone, func(r *Record) { r.Reason = failed.Message })
		m.log.Warn("attach failed", logfield.Disk(r.ID), logfield.Err(err))
		return failed
	}
	m.log.Info("attached", logfield.Disk(r.ID), logfield.UID(o.UID), logfield.Mode(string(s.keyMemory())))
	return nil
}

// publish serves s and records that, and that the data loss was accepted (nil if
// there was none). On an error s is closed.
func (m *Manager) publish(e *entry, s *session, o AttachOptions, accepted *SyncFailure) error {
	r := e.record.Load()
	uri, err := m.pub.Publish(&Attachment{
		ID: r.ID, Project: r.Project, Name: r.Name,
		Device: s.device, Locks: new(blockdev.RangeLock), ReadOnly: o.ReadOnly,
		BlockSize: uint32(r.BlockSize), UID: o.UID, GID: o.GID,
	})
	if err != nil {
		return errors.Join(err, s.close())
	}
	s.uri = uri
	e.open.Store(s)
	_, err = m.move(e, evAttached, func(r *Record) error {
		r.Reason = ""
		if accepted != nil && *r.SyncFailed == *accepted { // else one failed since
			r.SyncFailed = nil
		}
		r.Wish = &Wish{BootID: m.boot, UID: o.UID, GID: o.GID, ReadOnly: o.ReadOnly, AtBoot: o.AtBoot, Since: m.now()}
		trust(r, s)
		return nil
	})
	if err != nil {
		return errors.Join(err, m.withdraw(context.Background(), e, r.ID))
	}
	return nil
}

// trust takes over what a header says that is newer than the catalog: a change
// of the header was cut before it reached the catalog. Its MAC was checked.
func trust(r *Record, s *session) {
	if s.header == nil || s.header.Token.Generation == r.Encryption.MinGeneration {
		return
	}
	r.Encryption.MinGeneration = s.header.Token.Generation
	r.Encryption.Holes = mayHaveHoles(s.header)
	r.Discard = r.Discard && r.Encryption.Holes
}

// withdraw ends the service of a disk and closes it. It reports a sync that failed.
func (m *Manager) withdraw(ctx context.Context, e *entry, id string) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if err := m.pub.Withdraw(ctx, id); err != nil {
		m.log.Warn("requests were cut off", logfield.Disk(id), logfield.Err(err))
	}
	return e.open.Swap(nil).close()
}

// syncFailed returns what records that a sync of the disk's image failed.
func (m *Manager) syncFailed(e *entry) func(error) {
	return func(err error) {
		id := e.record.Load().ID
		m.log.Error("a sync failed: the disk takes no more writes, data may be lost", logfield.Disk(id), logfield.Err(err))
		lost := &SyncFailure{Time: m.now(), Reason: err.Error()}
		if err := m.amend(e, func(r *Record) { r.SyncFailed = lost }); err != nil {
			m.log.Error("the failed sync can't be recorded", logfield.Disk(id), logfield.Err(err))
		}
	}
}

// Detach ends an attachment: requests under way finish, the data is synced, the
// key pages are zeroed. The disk is detached even if an error says that the sync
// failed. Detaching a disk that only waits to be attached again gives that up.
// It never needs the KMS.
func (m *Manager) Detach(ctx context.Context, project, id string) error {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	e, err := m.find(project, id)
	if err != nil {
		return err
	}
	e.mu.Lock()
	r := e.record.Load()
	if r.State == StateAvailable && r.Wish != nil {
		defer e.mu.Unlock()
		return m.unwishLocked(e)
	}
	if _, err := r.next(evDetach); err != nil {
		e.mu.Unlock()
		return apiError("", err, r)
	}
	// A record that can't be stored must not keep a key in memory.
	r, err = m.moveLocked(e, evDetach, func(r *Record) error { r.Wish = nil; return nil }, true)
	e.mu.Unlock()
	if err != nil {
		m.log.Error("the disk's state can't be stored", logfield.Disk(id), logfield.Op(string(evDetach)), logfield.Err(err))
	}
	// Whoever asked may go away: a detach is not left half done.
	err = m.withdraw(context.WithoutCancel(ctx), e, id)
	m.settle(e, evDetached, func(*Record) {})
	m.log.Info("detached", logfield.Disk(id), logfield.Err(err))
	if err != nil {
		return apiError("disk "+r.Name+" is detached, but", err, r)
	}
	return nil
}

func (m *Manager) unwishLocked(e *entry) error {
	r := e.record.Load().clone()
	r.Wish, r.Updated = nil, m.now()
	if err := m.catalog.Put(r); err != nil {
		return apiError("detach disk "+r.Name, err, r)
	}
	e.record.Store(r)
	return nil
}
