package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"sealdisk/blockdev"
	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/secmem"
	"sealdisk/xts"
)

// Finalize fills the holes of a detached disk with encrypted zeros and then
// clears the header's requirement, so that cryptsetup and dm-crypt open it. There is
// no way back: the disk has no holes any more. It needs the key. Interrupted
// at any moment, the disk is as usable as before and Finalize goes on where it
// stopped.
func (m *Manager) Finalize(ctx context.Context, project, id string) (Job, error) {
	e, err := m.find(project, id)
	if err != nil {
		return Job{}, err
	}
	now := m.now()
	r, err := m.move(e, evAttach, func(r *Record) error {
		if r.Encryption == nil {
			return conflict("only encrypted disks have a header to finalize", "disk %s is not encrypted", r.Name)
		}
		if r.SyncFailed != nil {
			return conflict("attach it with --accept-data-loss and check its contents first", "disk %s: a sync failed, data may be lost", r.Name)
		}
		r.Job = newJob(JobFinalize, r, now)
		return nil
	})
	if err != nil && r.State == StateInUse {
		err = conflict("detach it first: sealdisk disk detach "+r.Name, "disk %s is attached", r.Name)
	}
	if err != nil {
		return Job{}, apiError("finalize disk "+r.Name, err, r)
	}
	job := *r.Job
	if !m.background(func(ctx context.Context) { m.finalize(ctx, e) }) {
		return Job{}, apiError("finalize disk "+r.Name, context.Canceled, r)
	}
	return job, nil
}

// finalize does the work of a disk that Finalize took (state attaching).
func (m *Manager) finalize(ctx context.Context, e *entry) {
	r := e.record.Load()
	s, err := m.openSession(ctx, r, false, m.syncFailed(e))
	if err == nil {
		err = m.clearHoles(ctx, s)
		err = errors.Join(err, s.close())
	}
	if err != nil && m.ctx.Err() != nil {
		return // the daemon stops: Recover goes on
	}
	m.log.Info("finalized", logfield.Disk(r.ID), logfield.Err(err))
	m.settle(e, evAttachUndone, func(r *Record) {
		if err == nil {
			trust(r, s)
			r.Reason, r.Job = "", r.Job.ended(nil, m.now())
			return
		}
		failed := apiError("finalize disk "+r.Name, err, r)
		r.Reason, r.Job = failed.Message, r.Job.ended(failed, m.now())
	})
}

// clearHoles makes s.header a header without the requirement, once the data is such.
func (m *Manager) clearHoles(ctx context.Context, s *session) error {
	if !mayHaveHoles(s.header) {
		return nil
	}
	m.step("finalize: fill")
	if err := blockdev.FillHoles(ctx, s.crypt, nil); err != nil {
		return err
	}
	m.step("finalize: seal")
	sealed, err := m.keys.Reseal(ctx, s.header, withoutHoles(s.header))
	if err != nil {
		return err
	}
	m.step("finalize: write header")
	if err := luks2.Write(s.image, sealed); err != nil {
		return err
	}
	s.header = sealed
	return nil
}

// withoutHoles is the next generation of h, not yet sealed.
func withoutHoles(h *luks2.Header) *luks2.Header {
	next := *h
	next.Requirements = slices.DeleteFunc(slices.Clone(h.Requirements), func(q string) bool { return q == luks2.RequirementHoles })
	if len(next.Requirements) == 0 {
		next.Requirements = nil
	}
	next.Token.Generation++
	return &next
}

// FinalizeFile does what Finalize does on an image without a daemon and without a
// KMS: with the disk's data key, volumeKey (64 bytes), which stays the caller's. It refuses an image that
// is in use. progress may be nil. done is false if there was nothing to do.
func FinalizeFile(ctx context.Context, path string, volumeKey []byte, progress func(done, total int64)) (done bool, err error) {
	defer func() {
		if err != nil {
			err = apiError("finalize "+path, err, nil)
		}
	}()
	f, err := openImage(path, false)
	if err != nil {
		return false, err
	}
	defer f.Close()
	h, _, err := readHeader(f, false)
	if err != nil {
		return false, err
	}
	if len(volumeKey) != luks2.KeySize {
		return false, usage("", "the file holds the data key as it is, without a line end or an encoding", "the volume key has %d bytes, want %d", len(volumeKey), luks2.KeySize)
	}
	if err := h.Verify(volumeKey); err != nil {
		return false, err
	}
	if !mayHaveHoles(h) {
		return false, nil
	}
	if err := fillFile(ctx, f, h, volumeKey, progress); err != nil {
		return false, err
	}
	next := withoutHoles(h)
	if err := next.Seal(volumeKey); err != nil {
		return false, err
	}
	return true, luks2.Write(f, next)
}

// fillFile fills the holes of the image f, which is taken.
func fillFile(ctx context.Context, f *os.File, h *luks2.Header, volumeKey []byte, progress func(done, total int64)) error {
	schedule, err := secmem.Lock(roundUp(xts.ScheduleSize, secmem.PageSize))
	if err != nil {
		return err
	}
	defer schedule.Destroy()
	if err := xts.Expand(schedule.Bytes()[:xts.ScheduleSize], volumeKey); err != nil {
		return fmt.Errorf("expand the volume key: %w", err)
	}
	file, err := blockdev.OpenFile(f.Name(), blockdev.FileOptions{Offset: h.DataOffset, Size: h.DataSize})
	if err != nil {
		return err
	}
	crypt, err := blockdev.NewCrypt(file, xts.New(schedule.Bytes()[:xts.ScheduleSize]),
		blockdev.CryptOptions{SectorSize: h.SectorSize, Holes: true})
	if err != nil {
		return errors.Join(err, file.Close())
	}
	return errors.Join(blockdev.FillHoles(ctx, crypt, progress), crypt.Close())
}
