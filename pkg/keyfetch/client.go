// Package keyfetch gets data keys (DK) for disks without showing them to the
// engine.
//
// The engine uses Client, which asks a short-lived child process for each key;
// the child calls Run. The child alone talks to the KMS, holds the DK, seals or
// verifies the LUKS2 header with it and expands it into key pages (package
// secmem) that the engine can only map. Its memory dies with it.
//
// The engine trusts the child to do this, but not more than it has to: what it
// fixed about a disk must come back unchanged, and a child that gives no answer in
// time is given up.
package keyfetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// DefaultTimeout is how long a key may take.
const DefaultTimeout = 30 * time.Second

// DefaultParallel is how many children run at once.
const DefaultParallel = 8

// Spawner starts a child that calls Run. Calls may be concurrent.
type Spawner interface {
	// Spawn starts a child with files as descriptors 3, 4, …, and returns
	// without waiting for it. It keeps no copy of files, which the caller may
	// close. The child is killed if it still runs at ctx's deadline or soon after.
	Spawn(ctx context.Context, files ...*os.File) error
}

// Options configure a Client.
type Options struct {
	// Timeout of each operation, 0 is DefaultTimeout.
	Timeout time.Duration
	// Parallel is how many children there may be at once, 0 is
	// DefaultParallel. Others wait, which does not count as their time.
	Parallel int
}

// Client is the engine's side. Its methods may be called concurrently; they do
// not change or keep the headers they are given.
//
// Their errors wrap those of packages kms and luks2, secmem.ErrMemlock,
// ErrDied, ErrTimeout (with kms.ErrUnavailable), ErrBadKey or ErrAnswer.
type Client struct {
	spawner  Spawner
	timeout  time.Duration
	places   chan struct{} // one token for each child
	unlocked atomic.Bool
	fetched  atomic.Uint64
}

// New returns a client whose children sp starts.
func New(sp Spawner, opt Options) *Client {
	c := &Client{spawner: sp, timeout: opt.Timeout}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	if opt.Parallel <= 0 {
		opt.Parallel = DefaultParallel
	}
	c.places = make(chan struct{}, opt.Parallel)
	return c
}

// Create makes a DK under key (an id or alias; "" is the default key of
// h.Token.Project) for the disk that h describes and returns h sealed: with
// the resolved key, the wrapped DK, digest and MAC. The wrapped DK was unwrapped a
// second time, as attaching will, and gave the same DK.
func (c *Client) Create(ctx context.Context, h *luks2.Header, key string) (*luks2.Header, error) {
	p, err := c.ask(ctx, &request{Op: opCreate, Key: key, Header: h}, nil)
	if err == nil {
		err = checkCreated(h, p.Header)
	}
	if err != nil {
		return nil, fmt.Errorf("make a data key: %w", err)
	}
	return p.Header, nil
}

// Attach unwraps the DK of h, checks h's digest and MAC with it and expands
// it into r, which is mapped when Attach returns nil. On an error r is to be
// destroyed. When Attach returned nil, the child's memory is gone.
func (c *Client) Attach(ctx context.Context, h *luks2.Header, r *secmem.Region) error {
	pages, err := r.Descriptor()
	if err != nil {
		return err
	}
	bare := *h
	bare.Kept = luks2.Kept{} // means nothing to the child, which then needs not parse it
	if _, err := c.ask(ctx, &request{Op: opAttach, Header: &bare}, pages); err != nil {
		return fmt.Errorf("fetch the data key: %w", err)
	}
	return r.MapReadOnly()
}

// Reseal checks old as Attach does and returns next sealed with the same DK.
// Next may differ from old in label, sequence number, data size,
// requirements and (upwards) generation.
func (c *Client) Reseal(ctx context.Context, old, next *luks2.Header) (*luks2.Header, error) {
	p, err := c.ask(ctx, &request{Op: opReseal, Header: old, Next: next}, nil)
	if err == nil {
		err = checkResealed(next, p.Header)
	}
	if err != nil {
		return nil, fmt.Errorf("seal the header: %w", err)
	}
	return p.Header, nil
}

// Unlocked reports whether the last child could not lock all of its memory.
func (c *Client) Unlocked() bool { return c.unlocked.Load() }

// Fetched counts the children that answered.
func (c *Client) Fetched() uint64 { return c.fetched.Load() }

// ask starts a child, asks it q and waits until it is gone.
func (c *Client) ask(ctx context.Context, q *request, pages *os.File) (*response, error) {
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-ctx.Done():
		return nil, c.expired(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	q.Version, q.TimeoutMS = protocolVersion, milliseconds(time.Until(deadline))
	if q.TimeoutMS <= 0 || ctx.Err() != nil {
		return nil, c.expired(ctx)
	}
	conn, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	files := []*os.File{theirs}
	if pages != nil {
		files = append(files, pages)
	}
	err = c.spawner.Spawn(ctx, files...)
	// Only the child may hold its end, or its death would not show.
	if err := errors.Join(err, theirs.Close()); err != nil {
		return nil, fmt.Errorf("start the key child: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := send(conn, q); err != nil {
		return nil, c.failed(ctx, err)
	}
	b, err := receive(conn)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	p, err := parseResponse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	c.unlocked.Store(!p.Locked)
	c.fetched.Add(1)
	if p.Error != nil {
		return nil, p.Error.err()
	}
	// The socket ends when the child is gone, and its memory with it.
	if b, err := receive(conn); err == nil {
		return nil, fmt.Errorf("%w: %d bytes after the answer", ErrAnswer, len(b))
	} else if !gone(err) {
		return nil, c.failed(ctx, err)
	}
	return p, nil
}

// gone reports whether err says that the other side closed its end.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// failed says why a conversation broke off with err.
func (c *Client) failed(ctx context.Context, err error) error {
	var ne net.Error
	switch {
	case gone(err):
		return ErrDied
	case ctx.Err() != nil, errors.As(err, &ne) && ne.Timeout():
		return c.expired(ctx)
	}
	return fmt.Errorf("talk to the key child: %w", err)
}

func (c *Client) expired(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fmt.Errorf("%w of %v: %w", ErrTimeout, c.timeout, kms.ErrUnavailable)
}

// checkCreated returns ErrAnswer unless got is h, in all that h fixed, and sealed.
func checkCreated(h, got *luks2.Header) error {
	if got == nil {
		return fmt.Errorf("%w: no header", ErrAnswer)
	}
	want := *h
	// The child chose these.
	want.Token.Provider, want.Token.KeyID, want.Token.KeyVersion = got.Token.Provider, got.Token.KeyID, got.Token.KeyVersion
	want.Token.WrappedDK = got.Token.WrappedDK
	want.Token.AADScheme = luks2.AADScheme
	want.Token.Generation = max(h.Token.Generation, 1)
	if got.Token.Provider == "" || got.Token.KeyID == "" || len(got.Token.WrappedDK) == 0 {
		return fmt.Errorf("%w: no wrapped key", ErrAnswer)
	}
	return checkResealed(&want, got)
}

// checkResealed returns ErrAnswer unless got is want, sealed.
func checkResealed(want, got *luks2.Header) error {
	if got == nil {
		return fmt.Errorf("%w: no header", ErrAnswer)
	}
	if diff := difference(want, got); diff != "" {
		return fmt.Errorf("%w: it changed the header's %s", ErrAnswer, diff)
	}
	if len(got.Token.MAC) != macSize || len(got.Digest.Value) == 0 || len(got.Digest.Salt) == 0 || got.Digest.Iterations <= 0 {
		return fmt.Errorf("%w: the header is not sealed", ErrAnswer)
	}
	return nil
}

// macSize is the size of the token's MAC in bytes (HMAC-SHA256).
const macSize = 32

// difference names the first field, other than what sealing sets, in which
// two headers differ.
func difference(a, b *luks2.Header) string {
	at, bt := &a.Token, &b.Token
	for _, f := range []struct {
		name string
		same bool
	}{
		{"UUID", a.UUID == b.UUID},
		{"label", a.Label == b.Label},
		{"sequence number", a.SeqID == b.SeqID},
		{"sector size", a.SectorSize == b.SectorSize},
		{"data offset", a.DataOffset == b.DataOffset},
		{"data size", a.DataSize == b.DataSize},
		{"requirements", slices.Equal(a.Requirements, b.Requirements)},
		{"provider", at.Provider == bt.Provider},
		{"key id", at.KeyID == bt.KeyID},
		{"key version", at.KeyVersion == bt.KeyVersion},
		{"wrapped key", slices.Equal(at.WrappedDK, bt.WrappedDK)},
		{"AAD scheme", at.AADScheme == bt.AADScheme},
		{"disk id", at.DiskID == bt.DiskID},
		{"project", at.Project == bt.Project},
		{"generation", at.Generation == bt.Generation},
		{"keyslots", reflect.DeepEqual(a.Kept, b.Kept)},
	} {
		if !f.same {
			return f.name
		}
	}
	return ""
}
