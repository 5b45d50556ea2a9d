package xts

import (
	"bytes"
	"testing"
)

// FuzzTiers compares all tiers with x/crypto on any range of granules, and with one
// another on any unit.
func FuzzTiers(f *testing.F) {
	f.Add([]byte("a key, or the seed of one"), []byte("data"), uint64(0), uint16(512), false)
	f.Add([]byte{1}, []byte{0xff}, uint64(7), uint16(4096+1024), true)
	f.Add([]byte{2}, bytes.Repeat([]byte{0x87}, 100), uint64(1<<54), uint16(33000), true)
	f.Add([]byte{3, 1}, []byte{}, uint64(1)<<55-200, uint16(17), false)
	f.Fuzz(func(t *testing.T, seed, pattern []byte, granule uint64, length uint16, large bool) {
		key := make([]byte, 32<<(len(seed)%2))
		copy(key, seed)
		if bytes.Equal(key[:len(key)/2], key[len(key)/2:]) {
			key[0]++
		}
		src := make([]byte, length)
		for n := 0; n < len(src) && len(pattern) > 0; {
			n += copy(src[n:], pattern)
		}
		sectorSize := 512
		if large {
			sectorSize = 4096
		}
		ranges := src[:len(src)/GranuleSize*GranuleSize]
		pos := granule % (1<<55 - 256) * GranuleSize
		var tweakBytes [16]byte
		copy(tweakBytes[:], pattern)

		c, ref := newCipher(t, key), newReference(t, key)
		var wantUnit []byte
		for i, name := range Tiers() {
			useTier(t, name)
			for _, dir := range []direction{encrypt, decrypt} {
				got := crypt(c, ranges, sectorSize, pos, dir, large)
				if !bytes.Equal(got, reference(ref, ranges, sectorSize, pos, dir)) {
					t.Fatalf("%s, decrypt %v: differs from x/crypto", name, dir)
				}
				if !bytes.Equal(crypt(c, got, sectorSize, pos, !dir, true), ranges) {
					t.Fatalf("%s, decrypt %v: there and back is not the same", name, dir)
				}
			}
			if len(src) < 16 {
				continue
			}
			got := unit(c, src, tweakBytes, encrypt, large)
			if i == 0 {
				wantUnit = got
			}
			if !bytes.Equal(got, wantUnit) {
				t.Fatalf("%s and %s: two ciphertexts of a unit", name, Tiers()[0])
			}
			if !bytes.Equal(unit(c, got, tweakBytes, decrypt, true), src) {
				t.Fatalf("%s: a unit there and back is not the same", name)
			}
		}
	})
}
