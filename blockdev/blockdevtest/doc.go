// Package blockdevtest has what tests of block devices need: a RAM disk, faults
// and delays scripted by the test, a recorder that stands in for a file and
// replays power cuts, the oracle that judges what a device holds after one, and
// the conformance suite that every device passes.
//
// Nothing here sleeps and nothing depends on the time: what is random comes
// from a seed, which a failing test prints and SEALDISK_SEED sets.
package blockdevtest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Seed is the seed of a test's random choices: SEALDISK_SEED, else the given
// one. It is printed when the test fails.
func Seed(t testing.TB, seed uint64) uint64 {
	if s := os.Getenv("SEALDISK_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			t.Fatalf("SEALDISK_SEED: %v", err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to repeat: SEALDISK_SEED=%d", seed)
		}
	})
	return seed
}

// Rand is the generator of a seed.
func Rand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x5ea1)) }

// Count is the number in the environment variable name, else n: how many
// schedules a long test runs.
func Count(t testing.TB, name string, n int) int {
	if s := os.Getenv(name); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return v
	}
	return n
}

// fill fills p with bytes of rng, never a whole granule of zeros.
func fill(p []byte, rng *rand.Rand) {
	x := rng.Uint64() | 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x >> 32)
	}
}
