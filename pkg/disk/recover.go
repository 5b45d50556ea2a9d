package disk

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/logfield"
)

// Recover resolves what an earlier process left half done, and then attaches what is
// wished to be attached, unless noReattach: in the same boot every wished
// disk, after a reboot those attached with AtBoot. It is called once, before any other
// operation may come.
//
//   - creating: nothing of a half-made disk is kept
//   - deleting: finished
//   - attaching, in-use, detaching: available, since nothing is attached now
//   - an unfinished finalize goes on in the background
//
// It returns when all disks were attached or have failed to; the reason stands
// on the disk. A KMS that is slow does not hold it up for longer than reattachTime. A disk
// whose KMS is out of reach stays wished, and is tried again in the background
// until it is attached, detached or deleted.
func (m *Manager) Recover(ctx context.Context, noReattach bool) error {
	m.mu.Lock()
	entries := slices.Collect(maps.Values(m.disks))
	m.mu.Unlock()
	var errs []error
	var wished []*entry
	for _, e := range entries {
		if err := m.resolve(e); err != nil {
			r := e.record.Load()
			m.log.Error("the disk can't be recovered", logfield.Disk(r.ID), logfield.State(string(r.State)), logfield.Err(err))
			errs = append(errs, err)
			continue
		}
		if m.wanted(e, noReattach) {
			wished = append(wished, e)
		}
	}
	m.reattachAll(ctx, wished)
	if len(errs) > 0 {
		return apiError("recover", errors.Join(errs...), nil)
	}
	return nil
}

// resolve brings one disk into a state that lasts.
func (m *Manager) resolve(e *entry) error {
	switch r := e.record.Load(); r.State {
	case StateCreating:
		if !r.Adopted {
			if err := m.removeImage(r.ID); err != nil {
				return err
			}
		}
		if r.Job != nil {
			m.jobs.put(r.Job.ended(errInterrupted, m.now()))
		}
		m.log.Warn("a half-made disk was removed", logfield.Disk(r.ID))
		return m.removeRecord(e, evAbandoned)
	case StateDeleting:
		m.finishDelete(e)
	case StateAttaching, StateInUse, StateDetaching:
		if r.State == StateAttaching && r.Job != nil && r.Job.Type == JobFinalize && !r.Job.Done() {
			m.background(func(ctx context.Context) { m.finalize(ctx, e) }) // it has the disk still
			return nil
		}
		_, err := m.move(e, evReset, nil)
		return err
	}
	return nil
}

var errInterrupted = &api.Error{Class: api.ClassInternal, Code: api.CodeVolumeError,
	Message: "the daemon was stopped in the middle, nothing was kept", Hint: "try again"}

// wanted reports whether a disk is to be attached again. A wish that has
// lapsed is dropped.
func (m *Manager) wanted(e *entry, noReattach bool) bool {
	r := e.record.Load()
	if r.State != StateAvailable || r.Wish == nil {
		return false
	}
	if !noReattach && (r.Wish.BootID == m.boot || r.Wish.AtBoot) {
		return true
	}
	m.dropWish(e, "")
	return false
}

func (m *Manager) dropWish(e *entry, reason string) {
	if err := m.amend(e, func(r *Record) { r.Wish, r.Reason = nil, reason }); err != nil {
		m.log.Error("the disk's state can't be stored", logfield.Disk(e.record.Load().ID), logfield.Err(err))
	}
}

// reattachTime is how long Recover waits for disks to be attached again.
const reattachTime = 5 * time.Second

func (m *Manager) reattachAll(ctx context.Context, wished []*entry) {
	var first sync.WaitGroup // attempts
	for _, e := range wished {
		first.Add(1)
		if !m.background(func(ctx context.Context) {
			again := m.reattach(ctx, e)
			first.Done()
			if again {
				m.retry(ctx, e)
			}
		}) {
			first.Done()
		}
	}
	all := make(chan struct{})
	go func() {
		first.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-ctx.Done():
	case <-time.After(reattachTime):
		m.log.Warn("some disks are still being attached: the KMS is slow")
	}
}

// reattach attaches a disk as its wish says, if it still has one, and reports whether to
// try again. A wish that can't be granted is dropped, with the reason on the disk.
func (m *Manager) reattach(ctx context.Context, e *entry) (again bool) {
	r := e.record.Load()
	if r.State != StateAvailable || r.Wish == nil {
		return false // somebody attached, detached or deleted it meanwhile
	}
	w := *r.Wish
	err := m.attach(ctx, e, AttachOptions{UID: w.UID, GID: w.GID, ReadOnly: w.ReadOnly, AtBoot: w.AtBoot})
	switch {
	case err == nil || ctx.Err() != nil: // stopping: the next daemon tries again
		return false
	case api.ClassOf(err) == api.ClassKMSUnreachable:
		return true
	case e.record.Load().State == StateAvailable: // else somebody was faster
		m.dropWish(e, err.Error())
	}
	return false
}

// The pause between two attempts to attach grows from the first to the second.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// retry attaches a wished disk as soon as its KMS is there.
func (m *Manager) retry(ctx context.Context, e *entry) {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		if !m.reattach(ctx, e) {
			return
		}
	}
}

// Close ends background work, ends the service of all attached disks as Detach
// does, but leaves the wishes, and gives the state directory back.
// It returns what syncs failed.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
	m.mu.Lock()
	entries := slices.Collect(maps.Values(m.disks))
	m.mu.Unlock()
	var wg sync.WaitGroup
	errs := make([]error, len(entries))
	for i, e := range entries {
		wg.Go(func() { errs[i] = m.closeDisk(ctx, e) })
	}
	wg.Wait()
	if err := errors.Join(append(errs, m.lock.Close())...); err != nil {
		return apiError("stop", err, nil)
	}
	return nil
}

func (m *Manager) closeDisk(ctx context.Context, e *entry) error {
	e.mu.Lock()
	r := e.record.Load()
	if r.State != StateInUse {
		e.mu.Unlock()
		return nil
	}
	r, err := m.moveLocked(e, evDetach, nil, true)
	e.mu.Unlock()
	if err != nil {
		m.log.Error("the disk's state can't be stored", logfield.Disk(r.ID), logfield.Err(err))
	}
	return m.withdraw(ctx, e, r.ID)
}
