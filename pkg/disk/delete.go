package disk

import (
	"context"

	"sealdisk/pkg/logfield"
)

// Delete removes a disk that is not attached, its data and its header. It never
// calls the KMS.
func (m *Manager) Delete(project, id string) (Job, error) {
	e, err := m.find(project, id)
	if err != nil {
		return Job{}, err
	}
	now := m.now()
	r, err := m.move(e, evDelete, func(r *Record) error {
		r.Wish, r.Job = nil, newJob(JobDelete, r, now)
		return nil
	})
	if err != nil {
		return Job{}, apiError("", err, r)
	}
	job := *r.Job
	if !m.background(func(context.Context) { m.finishDelete(e) }) {
		return Job{}, apiError("delete disk "+r.Name, context.Canceled, r)
	}
	return job, nil
}

// finishDelete removes the image, then the record: as long as there is
// something of the image, a record says so.
func (m *Manager) finishDelete(e *entry) {
	r := e.record.Load()
	err := m.removeImage(r.ID)
	if err == nil {
		err = m.removeRecord(e, evDeleted)
	}
	if err != nil {
		m.log.Error("delete failed", logfield.Disk(r.ID), logfield.Err(err))
		m.settle(e, evDeleteFailed, func(r *Record) {
			failed := apiError("delete disk "+r.Name, err, r)
			r.Reason, r.Job = failed.Message, r.Job.ended(failed, m.now())
		})
		return
	}
	m.log.Info("deleted", logfield.Disk(r.ID))
	if r.Job != nil {
		m.jobs.put(r.Job.ended(nil, m.now()))
	}
}

// removeRecord takes a disk without image out of the catalog and the list.
func (m *Manager) removeRecord(e *entry, ev event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.record.Load()
	if _, err := r.next(ev); err != nil {
		return err
	}
	if err := m.catalog.Remove(r.ID); err != nil {
		return err
	}
	e.gone = true
	m.forget(r.ID)
	return nil
}
