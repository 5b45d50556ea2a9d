package disk

import (
	"sync"
	"time"

	"github.com/google/uuid"

	"sealdisk/pkg/api"
)

// Job is a piece of work that goes on after its request was answered, as in
// EVS. The last job of a disk stands in its record, so that unfinished work is
// known after a restart; jobs that are done are remembered in memory only.
type Job struct {
	ID      string    `json:"id"`
	Type    JobType   `json:"type"`
	Status  JobStatus `json:"status"`
	Project string    `json:"project"`
	DiskID  string    `json:"disk_id"`
	Disk    string    `json:"disk"` // its name
	Size    int64     `json:"size"` // bytes
	Begin   time.Time `json:"begin"`
	End     time.Time `json:"end,omitzero"`
	// FailReason, FailHint, FailClass and FailCode tell why Status is FAIL.
	FailReason string    `json:"fail_reason,omitempty"`
	FailHint   string    `json:"fail_hint,omitempty"`
	FailClass  api.Class `json:"fail_class,omitempty"`
	FailCode   string    `json:"fail_code,omitempty"`
}

// JobType is EVS's job_type.
type JobType string

const (
	JobCreate   JobType = "createVolume"
	JobDelete   JobType = "deleteVolume"
	JobFinalize JobType = "finalizeVolume" // not in EVS
	JobImport   JobType = "importVolume"   // not in EVS
)

// JobStatus is EVS's status of a job; its INIT does not occur.
type JobStatus string

const (
	JobRunning JobStatus = "RUNNING"
	JobSuccess JobStatus = "SUCCESS"
	JobFail    JobStatus = "FAIL"
)

// Done reports whether the job has ended.
func (j *Job) Done() bool { return j.Status == JobSuccess || j.Status == JobFail }

func newJob(t JobType, r *Record, now time.Time) *Job {
	return &Job{ID: uuid.NewString(), Type: t, Status: JobRunning,
		Project: r.Project, DiskID: r.ID, Disk: r.Name, Size: r.Size, Begin: now}
}

// ended returns the job as it is after err (nil is success).
func (j *Job) ended(err error, now time.Time) *Job {
	c := *j
	c.Status, c.End = JobSuccess, now
	if err != nil {
		e := apiError("", err, nil)
		c.Status, c.FailReason, c.FailHint, c.FailClass, c.FailCode = JobFail, e.Message, e.Hint, e.Class, e.Code
	}
	return &c
}

// keptJobs is how many ended jobs are remembered.
const keptJobs = 1000

// jobList remembers jobs by id. All methods may be called concurrently.
type jobList struct {
	mu   sync.Mutex
	jobs map[string]*Job
	done []string // ids of ended jobs, oldest first
}

func (l *jobList) put(j *Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.jobs == nil {
		l.jobs = map[string]*Job{}
	}
	if old := l.jobs[j.ID]; j.Done() && (old == nil || !old.Done()) {
		l.done = append(l.done, j.ID)
	}
	l.jobs[j.ID] = j
	for len(l.done) > keptJobs {
		delete(l.jobs, l.done[0])
		l.done = l.done[1:]
	}
}

func (l *jobList) get(project, id string) (Job, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := l.jobs[id]
	if j == nil || j.Project != project {
		return Job{}, false
	}
	return *j, true
}
