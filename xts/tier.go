package xts

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// A tier is one implementation of the cipher; its number is fixed, whether this
// build and this CPU have it or not.
type tier uint8

const (
	tierGeneric tier = iota // pure Go, everywhere
	tierAESNI               // amd64: SSE, AES-NI and PCLMULQDQ
	tierVAES                // amd64: AVX2, VAES and VPCLMULQDQ
	tierVAES512             // amd64: the same with AVX-512
	tierAES                 // arm64: the AES extension
)

func (t tier) String() string { return [...]string{"generic", "aesni", "vaes", "vaes512", "aes"}[t] }

// active is the index in tiers of the tier in use; 0 is the best.
var active atomic.Int32

// inUse is the tier that a call takes.
func inUse() tier { return tiers[active.Load()] }

// Tiers lists the implementations that this build and this CPU have, the best
// first: "vaes512", "vaes" and "aesni" on amd64, "aes" on arm64, and always "generic",
// which is pure Go. All give the same bytes.
func Tiers() []string {
	names := make([]string, len(tiers))
	for i, t := range tiers {
		names[i] = t.String()
	}
	return names
}

// Tier names the implementation in use: the best one, unless ForceTier chose
// another.
func Tier() string { return inUse().String() }

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
		i = slices.Index(Tiers(), name)
	}
	if i < 0 {
		return fmt.Errorf("%w: %q (have %q)", ErrTier, name, Tiers())
	}
	active.Store(int32(i))
	return nil
}
