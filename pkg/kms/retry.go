package kms

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
	// RetryFor bounds the time that Retry spends on trying again: somebody waits.
	RetryFor = 5 * time.Second
)

// Retry calls f until it succeeds, fails with something else than ErrThrottled
// or ErrUnavailable, or RetryFor or ctx is over. Pauses double up to 2 s, with
// jitter, so that many clients of a KMS that comes back do not ask in step. It
// returns f's last error and never calls f again once ctx ended.
func Retry(ctx context.Context, f func() error) error {
	deadline := time.Now().Add(RetryFor)
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := f()
		if !errors.Is(err, ErrThrottled) && !errors.Is(err, ErrUnavailable) {
			return err
		}
		wait := pause/2 + rand.N(pause) // from half to one and a half
		if time.Now().Add(wait).After(deadline) {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
	}
}
