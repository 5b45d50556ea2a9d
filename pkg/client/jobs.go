package client

import (
	"context"
	"net/http"
	"time"

	"sealdisk/pkg/api"
)

// Job returns a job.
func (c *Client) Job(ctx context.Context, project, id string) (j api.Job, err error) {
	return j, c.do(ctx, http.MethodGet, "/v1/"+esc(project)+"/jobs/"+esc(id), nil, &j)
}

// The pause between two looks at a job grows from the first to the second.
const (
	firstLook = 5 * time.Millisecond
	lastLook  = time.Second
)

// Wait waits for a job and returns why it failed. A daemon that restarts
// meanwhile is waited for.
func (c *Client) Wait(ctx context.Context, project, id string) (api.Job, error) {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		j, err := c.Job(ctx, project, id)
		switch {
		case err != nil && (api.ClassOf(err) != api.ClassDaemonUnreachable || pause >= lastLook):
			return j, err
		case err != nil:
		case j.Status == api.JobSuccess:
			return j, nil
		case j.Status == api.JobFail:
			e := &api.Error{Class: j.Class, Code: j.ErrorCode, Message: j.FailReason, Hint: j.Hint}
			if e.Class == "" {
				e.Class = api.ClassInternal
			}
			if e.Message == "" {
				e.Message = "the job failed and does not say why"
			}
			return j, e
		}
		select {
		case <-ctx.Done():
			return j, c.unreachable(context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
