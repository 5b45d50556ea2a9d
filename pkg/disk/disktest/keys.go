// Package disktest has what tests of disks need in place of a KMS.
package disktest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"sync"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
	"sealdisk/xts"
)

// KeyID is what every alias resolves to.
const KeyID = "0d0466b0-e727-4d9c-b35d-f84bb474a37f"

// Keys is a disk.KeyFetcher and its KMS in one. The wrapping is a toy that needs no
// memory, so that a test's next process opens what the last one made.
type Keys struct {
	mu     sync.Mutex
	err    error
	calls  int
	lastDK []byte
	hang   chan struct{} // nil, or closed when the KMS answers again
}

// Fail lets every later call answer err; nil ends that.
func (k *Keys) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// Hang lets every later call wait, for as long as its context allows, until release is
// called.
func (k *Keys) Hang() (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hang = make(chan struct{})
	return sync.OnceFunc(func() { close(k.hang) })
}

func (k *Keys) call(ctx context.Context) error {
	k.mu.Lock()
	k.calls++
	hang := k.hang
	k.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// Count returns how often the KMS was asked.
func (k *Keys) Count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls
}

func wrap(dk []byte, key, aad string) []byte {
	sum := sha256.Sum256([]byte(key + aad))
	w := bytes.Clone(dk)
	for i := range w {
		w[i] ^= 0xa5
	}
	return append(w, sum[:]...)
}

func unwrap(h *luks2.Header) ([]byte, error) {
	w := h.Token.WrappedDK
	if len(w) != kms.DKSize+sha256.Size {
		return nil, kms.ErrBinding
	}
	dk := bytes.Clone(w[:kms.DKSize])
	for i := range dk {
		dk[i] ^= 0xa5
	}
	if !bytes.Equal(wrap(dk, h.Token.KeyID, h.Token.AAD()), w) {
		return nil, kms.ErrBinding
	}
	return dk, nil
}

// Create implements disk.KeyFetcher.
func (k *Keys) Create(ctx context.Context, h *luks2.Header, key string) (*luks2.Header, error) {
	if err := k.call(ctx); err != nil {
		return nil, err
	}
	n := *h
	dk := make([]byte, kms.DKSize)
	if _, err := rand.Read(dk); err != nil {
		return nil, err
	}
	n.Token.Provider, n.Token.KeyID, n.Token.KeyVersion = "fake", KeyID, "1"
	n.Token.WrappedDK = wrap(dk, KeyID, n.Token.AAD())
	k.mu.Lock()
	k.lastDK = dk
	k.mu.Unlock()
	return &n, n.Seal(dk)
}

// Attach implements disk.KeyFetcher.
func (k *Keys) Attach(ctx context.Context, h *luks2.Header, r *secmem.Region) error {
	if err := k.call(ctx); err != nil {
		return err
	}
	dk, err := unwrap(h)
	if err != nil {
		return err
	}
	if err := h.Verify(dk); err != nil {
		return err
	}
	f, err := r.Descriptor()
	if err != nil {
		return err
	}
	w, err := secmem.OpenChild(f, r.Size())
	if err != nil {
		return err
	}
	if err := xts.Expand(w.Bytes()[:xts.ScheduleSize], dk); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return r.MapReadOnly()
}

// Reseal implements disk.KeyFetcher.
func (k *Keys) Reseal(ctx context.Context, old, next *luks2.Header) (*luks2.Header, error) {
	if err := k.call(ctx); err != nil {
		return nil, err
	}
	dk, err := unwrap(old)
	if err != nil {
		return nil, err
	}
	if err := old.Verify(dk); err != nil {
		return nil, err
	}
	n := *next
	return &n, n.Seal(dk)
}

// Rewrap puts h under another key of the same KMS, with everything genuine: what
// somebody could do who has the data key and may use that key.
func (k *Keys) Rewrap(h *luks2.Header, key string) error {
	dk := k.LastDK()
	h.Token.KeyID = key
	h.Token.WrappedDK = wrap(dk, key, h.Token.AAD())
	return h.Seal(dk)
}

// LastDK returns the data key that was made last.
func (k *Keys) LastDK() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.lastDK)
}
