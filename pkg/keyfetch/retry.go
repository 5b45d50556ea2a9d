package keyfetch

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"sealdisk/pkg/kms"
)

const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
	// retryFor bounds the time spent on trying again: somebody waits.
	retryFor = 5 * time.Second
)

// retry calls f until it succeeds, fails with something else than throttling
// or unavailability, or its time is up. Pauses double, with jitter. It returns f's
// last error.
func retry(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, retryFor) // f has a deadline of its own
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := f()
		if !errors.Is(err, kms.ErrThrottled) && !errors.Is(err, kms.ErrUnavailable) {
			return err
		}
		wait := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			wait.Stop()
			return err
		case <-wait.C:
		}
	}
}
