package xts

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// active is the index in tiers of the tier in use; 0 is the best.
var active atomic.Int32

// Tiers lists the implementations that this build and this CPU have, the best
// first: "generic" is pure Go, there is always one. All give the same bytes.
func Tiers() []string { return slices.Clone(tiers) }

// Tier names the implementation in use: the best one, unless ForceTier chose
// another.
func Tier() string { return tiers[active.Load()] }

// ForceTier makes this process use the named tier, whatever Cipher a call is
// on; "" goes back to the best one. It is for tests, benchmarks, and to rule a
// tier out when one is suspected. It may be called at any time, concurrently: a
// call that is under way may change over in the middle, its bytes stay the
// same. Schedules need not be expanded again.
//
// It returns ErrTier, and changes nothing, when Tiers does not list the name.
func ForceTier(name string) error {
	i := 0
	if name != "" {
		i = slices.Index(tiers, name)
	}
	if i < 0 {
		return fmt.Errorf("%w: %q (have %q)", ErrTier, name, tiers)
	}
	active.Store(int32(i))
	return nil
}
