// Package dew is a client of DEW's key management API, as the embedded KMS
// speaks it on a unix socket.
//
// New gives the kms.Provider of the disk service; NewClient gives the
// operations of an administrator, for the command line.
package dew

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
	"strconv"
	"strings"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

const (
	maxReply    = 4 << 20 // bytes; a full page of keys has less than 2 MiB
	defaultTime = 30 * time.Second
)

// Client talks to one KMS. Its methods may be called concurrently, honour ctx
// and a limit of 30 s, and do not retry. Their errors are *Error or kms's.
type Client struct {
	socket    string
	principal string
	http      *http.Client
}

// NewClient returns a client of the KMS that listens on the unix socket. The
// KMS sees it as this process's uid.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{
		Timeout: defaultTime,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
			// A kept connection would fail the first call after the KMS was
			// restarted, and a new one costs next to nothing on a unix socket.
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close releases what the client holds.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.socket)
}

// request makes an HTTP request of this client.
func (c *Client) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	q, err := http.NewRequestWithContext(ctx, method, "http://kms"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", kms.ErrProtocol, err)
	}
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	if c.principal != "" {
		q.Header.Set(api.HeaderPrincipal, c.principal)
	}
	return q, nil
}

// call sends in, if not nil, and reads the reply into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%w: %v", kms.ErrProtocol, err)
		}
	}
	q, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	rsp, err := c.http.Do(q)
	if err != nil {
		return unavailable(ctx, err)
	}
	defer rsp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(rsp.Body, maxReply+1))
	switch {
	case err != nil:
		return unavailable(ctx, err)
	case len(b) > maxReply:
		return fmt.Errorf("%w: its reply is longer than %d bytes", kms.ErrProtocol, maxReply)
	case rsp.StatusCode != http.StatusOK:
		return errorOf(rsp.StatusCode, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%w: its reply to %s: %v", kms.ErrProtocol, path, err)
	}
	return nil
}

// unavailable says why no reply came. A caller that gave up is told so, and
// not that the KMS is away.
func unavailable(ctx context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the made-up URL
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("asking the KMS: %w", context.Canceled)
	}
	return fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
}

func kmsPath(project, op string) string {
	return "/v1.0/" + url.PathEscape(project) + "/kms/" + op
}

func agencyPath(project string) string {
	return "/sealdisk/v1/" + url.PathEscape(project) + "/agency"
}

// CreateKey makes a custom key and returns its id.
func (c *Client) CreateKey(ctx context.Context, project, alias, description string) (string, error) {
	var rsp api.CreateKeyResponse
	err := c.call(ctx, "POST", kmsPath(project, "create-key"), api.CreateKeyRequest{KeyAlias: alias, KeyDescription: description}, &rsp)
	return rsp.KeyInfo.KeyID, err
}

// ListKeys lists all of project's keys, the oldest first.
func (c *Client) ListKeys(ctx context.Context, project string) ([]api.KeyDetails, error) {
	all := []api.KeyDetails{}
	marker := ""
	for {
		var rsp api.ListKeysResponse
		if err := c.call(ctx, "POST", kmsPath(project, "list-keys"), api.ListKeysRequest{Marker: marker}, &rsp); err != nil {
			return nil, err
		}
		all = append(all, rsp.KeyDetails...)
		if rsp.Truncated != "true" {
			return all, nil
		}
		if len(rsp.KeyDetails) == 0 || rsp.NextMarker == marker {
			return nil, fmt.Errorf("%w: its list of keys does not end", kms.ErrProtocol)
		}
		marker = rsp.NextMarker
	}
}

// ShowKey describes a key, given by id or alias.
func (c *Client) ShowKey(ctx context.Context, project, key string) (api.KeyDetails, error) {
	var rsp api.DescribeKeyResponse
	err := c.call(ctx, "POST", kmsPath(project, "describe-key"), api.KeyRequest{KeyID: key}, &rsp)
	if err == nil && rsp.KeyInfo.KeyID == "" {
		err = fmt.Errorf("%w: its description of the key has no id", kms.ErrProtocol)
	}
	return rsp.KeyInfo, err
}

// EnableKey enables a disabled key.
func (c *Client) EnableKey(ctx context.Context, project, key string) (api.KeyStatus, error) {
	var rsp api.KeyStatusResponse
	err := c.call(ctx, "POST", kmsPath(project, "enable-key"), api.KeyRequest{KeyID: key}, &rsp)
	return rsp.KeyInfo, err
}

// DisableKey disables an enabled key.
func (c *Client) DisableKey(ctx context.Context, project, key string) (api.KeyStatus, error) {
	var rsp api.KeyStatusResponse
	err := c.call(ctx, "POST", kmsPath(project, "disable-key"), api.KeyRequest{KeyID: key}, &rsp)
	return rsp.KeyInfo, err
}

// GrantAgency lets EVS use project's keys, and makes the default key.
func (c *Client) GrantAgency(ctx context.Context, project string) (a api.Agency, err error) {
	return a, c.call(ctx, "POST", agencyPath(project), nil, &a)
}

// ShowAgency tells whether EVS may use project's keys.
func (c *Client) ShowAgency(ctx context.Context, project string) (a api.Agency, err error) {
	return a, c.call(ctx, "GET", agencyPath(project), nil, &a)
}

// RevokeAgency takes the use of project's keys from EVS.
func (c *Client) RevokeAgency(ctx context.Context, project string) (a api.Agency, err error) {
	return a, c.call(ctx, "DELETE", agencyPath(project), nil, &a)
}

// Status tells how the KMS runs. It serves as its health check.
func (c *Client) Status(ctx context.Context) (s api.KMSStatus, err error) {
	return s, c.call(ctx, "GET", "/sealdisk/v1/status", nil, &s)
}

// ParseState reads a key_state.
func ParseState(s string) (kms.State, error) {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 0, fmt.Errorf("%w: key state %.16q", kms.ErrProtocol, s)
	}
	return kms.State(n), nil
}
