package keyfetch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/kms"
)

// fakeKMS is a KMS in memory. Its fields say how it misbehaves.
type fakeKMS struct {
	mu      sync.Mutex
	state   kms.State
	dks     map[string][]byte // ciphertext → DK
	aads    map[string]string // ciphertext → AAD
	calls   map[string]int
	fail    map[string]error          // operation → error
	failN   map[string]int            // operation → how often it fails; absent is always
	mangle  func(call int, dk []byte) // changes what Unwrap gives
	hang    map[string]bool           // operation → waits for ctx
	entered chan string               // tells operations that hang
	ended   []error                   // why those that hung ended
	keyID   string                    // of the wrapped key, if not the key's
	newDK   func() []byte             // if set
}

func newFake() *fakeKMS {
	return &fakeKMS{state: kms.StateEnabled, dks: map[string][]byte{}, aads: map[string]string{}, calls: map[string]int{},
		fail: map[string]error{}, failN: map[string]int{}, hang: map[string]bool{}, entered: make(chan string, 16)}
}

func (f *fakeKMS) Name() string { return "fake" }

func (f *fakeKMS) enter(ctx context.Context, op string) error {
	f.mu.Lock()
	f.calls[op]++
	n, hang, err := f.calls[op], f.hang[op], f.fail[op]
	if limit, ok := f.failN[op]; ok && n > limit {
		err = nil
	}
	f.mu.Unlock()
	if hang {
		f.entered <- op
		<-ctx.Done()
		f.mu.Lock()
		f.ended = append(f.ended, ctx.Err())
		f.mu.Unlock()
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	return err
}

func (f *fakeKMS) DescribeKey(ctx context.Context, project, key string) (kms.Key, error) {
	if err := f.enter(ctx, "describe"); err != nil {
		return kms.Key{}, err
	}
	return kms.Key{ID: "id-of-" + key, Alias: key, State: f.state, Version: "1"}, nil
}

func (f *fakeKMS) NewWrapped(ctx context.Context, project, key, aad string) (kms.Wrapped, error) {
	if err := f.enter(ctx, "new"); err != nil {
		return kms.Wrapped{}, err
	}
	dk := make([]byte, kms.DKSize)
	rand.Read(dk)
	if f.newDK != nil {
		dk = f.newDK()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ct := fmt.Sprintf("wrapped-%d", len(f.dks))
	f.dks[ct], f.aads[ct] = dk, aad
	id := key
	if f.keyID != "" {
		id = f.keyID
	}
	return kms.Wrapped{KeyID: id, KeyVersion: "1", Ciphertext: []byte(ct)}, nil
}

func (f *fakeKMS) Unwrap(ctx context.Context, project string, w kms.Wrapped, aad string, dst []byte) error {
	if err := f.enter(ctx, "unwrap"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dk, ok := f.dks[string(w.Ciphertext)]
	if !ok || f.aads[string(w.Ciphertext)] != aad {
		return kms.ErrBinding
	}
	copy(dst, dk)
	if f.mangle != nil {
		f.mangle(f.calls["unwrap"], dst)
	}
	return nil
}

func (f *fakeKMS) called(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// inProcess runs the child's side in a goroutine.
type inProcess struct {
	t        *testing.T
	provider kms.Provider
	opt      ChildOptions
	lockErr  error
	wg       sync.WaitGroup
}

func (s *inProcess) Spawn(_ context.Context, files ...*os.File) error {
	fds := make([]*os.File, 2)
	for i, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		fds[i] = os.NewFile(uintptr(fd), f.Name())
	}
	s.wg.Go(func() {
		if err := answer(fds[0], fds[1], s.provider, s.opt, s.lockErr); err != nil {
			s.t.Logf("child: %v", err)
		}
		if fds[1] != nil {
			fds[1].Close()
		}
	})
	return nil
}

// newClient returns a client whose children use f.
func newClient(t *testing.T, f kms.Provider) *Client {
	s := &inProcess{t: t, provider: f}
	t.Cleanup(s.wg.Wait)
	return New(s, Options{Timeout: 20 * time.Second})
}

// scripted is a child that answers whatever the test says. If it has an until,
// it goes away only when that ends.
type scripted struct {
	answers func(req []byte) [][]byte
	until   context.Context
}

func (s scripted) Spawn(_ context.Context, files ...*os.File) error {
	fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c, err := connOf(os.NewFile(uintptr(fd), "script"))
	if err != nil {
		return err
	}
	go func() {
		defer c.Close()
		b, err := receive(c)
		if err != nil {
			return
		}
		for _, m := range s.answers(b) {
			c.Write(m)
		}
		if s.until != nil {
			<-s.until.Done()
		}
	}()
	return nil
}

const diskID = "0e1f6d1c-8f5d-4b0b-9d2a-3f0f5a9c7e11"

// plain is a header as the engine asks for it.
func plain() *luks2.Header {
	return &luks2.Header{UUID: diskID, Label: "web", SectorSize: 4096, DataOffset: luks2.DataOffset,
		Requirements: []string{luks2.RequirementHoles}, Token: luks2.Token{Project: "default", DiskID: diskID}}
}

func created(t *testing.T, c *Client) *luks2.Header {
	t.Helper()
	h, err := c.Create(t.Context(), plain(), "finance")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func wantIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}
