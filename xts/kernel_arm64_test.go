//go:build !purego

package xts

import (
	"slices"
	"testing"

	"sealdisk/xts/registertest"
)

// A machine without the AES extension can't test this package.
func TestTiersOfThisCPU(t *testing.T) {
	if got := Tiers(); !slices.Equal(got, []string{"aes", "generic"}) {
		t.Fatalf("Tiers() = %q: run the tests on a CPU with the AES extension", got)
	}
}

// Nothing is left in vector registers when a call returns.
func TestRegistersAreCleared(t *testing.T) {
	sched := storage()
	if err := Expand(sched, randomBytes(random(60), 64)); err != nil {
		t.Fatal(err)
	}
	s, data := view(sched), randomBytes(random(61), 4096)
	var ts [tweakBatch]tweak
	for i := range ts {
		ts[i] = loadTweak((*[blockSize]byte)(data[16*i:]))
	}
	enc, dec, tw, rounds, p := &s.enc[0], &s.dec[0], &s.tweak[0], int(s.rounds), &data[0]
	for name, call := range map[string]func(){
		"encryptAES":      func() { encryptAES(enc, rounds, &ts[0], p, p, 1, 4, 32) },
		"decryptAES":      func() { decryptAES(dec, rounds, &ts[0], p, p, 1, 4, 32) },
		"encryptBlockAES": func() { encryptBlockAES(enc, rounds, &ts[0], p, p) },
		"decryptBlockAES": func() { decryptBlockAES(dec, rounds, &ts[0], p, p) },
		"tweaksAES":       func() { tweaksAES(tw, rounds, &ts, 16) },
	} {
		var v [32][16]byte
		call()
		registertest.V(&v)
		if v != [32][16]byte{} {
			t.Errorf("%s leaves %x in V0…V31", name, v)
		}
	}
}
