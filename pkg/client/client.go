// Package client talks to the daemon's EVS API on its unix socket. It returns
// what the server said as *api.Error; a daemon that can't be reached has the class
// daemon_unreachable.
//
// A Client may be used concurrently.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"sealdisk/pkg/api"
)

// maxReply bounds a reply, in bytes: a page of 1000 volumes with room to spare.
const maxReply = 16 << 20

// Client is a connection to one daemon.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the daemon behind socket. It connects at the first call.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:           c.dial,
			DisableCompression:    true,
			ResponseHeaderTimeout: 2 * time.Minute, // the daemon asks a KMS, or lets a disk's clients finish
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// restartTime is how long a daemon may be gone that is being started again: its socket is still
// there but nobody listens.
const restartTime = 2 * time.Second

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	deadline := time.After(restartTime)
	for {
		conn, err := d.DialContext(ctx, "unix", c.socket)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
		select {
		case <-deadline:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(restartTime / 40):
		}
	}
}

// do sends in (nil: no body) and decodes the reply into out (nil: none wanted).
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://sealdisk"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return c.unreachable(err)
	}
	if len(b) > maxReply {
		return fmt.Errorf("the reply to %s %s is longer than %d bytes", method, path, maxReply)
	}
	if resp.StatusCode >= 300 {
		return failure(resp, b)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the reply to %s %s is malformed: %w", method, path, err)
	}
	return nil
}

// unreachable says why there was no reply.
func (c *Client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return &api.Error{Class: api.ClassInternal, Message: "interrupted", Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Class: api.ClassDaemonUnreachable, Message: "the daemon did not answer in time", Hint: "see its log", Err: err}
	}
	return &api.Error{Class: api.ClassDaemonUnreachable, Message: fmt.Sprintf("the daemon can't be reached: %v", err),
		Hint: fmt.Sprintf("start it with: sealdisk serve (or give its --run-dir; tried %s)", c.socket), Err: err}
}

// failure reads an error reply.
func failure(resp *http.Response, body []byte) error {
	var b api.ErrorBody
	if err := json.Unmarshal(body, &b); err != nil || b.Error == nil || b.Error.Message == "" {
		return &api.Error{Class: api.ClassOfStatus(resp.StatusCode), Message: "the daemon answered " + resp.Status}
	}
	if b.Error.Class == "" {
		b.Error.Class = api.ClassOfStatus(resp.StatusCode)
	}
	return b.Error
}

// Status returns what the daemon says of itself.
func (c *Client) Status(ctx context.Context) (s api.Status, err error) {
	return s, c.do(ctx, http.MethodGet, "/sealdisk/v1/status", nil, &s)
}

func esc(s string) string { return url.PathEscape(s) }
