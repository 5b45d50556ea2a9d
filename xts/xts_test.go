package xts

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	refxts "golang.org/x/crypto/xts"
)

// storage returns ScheduleSize bytes aligned to 64.
func storage() []byte {
	b := make([]byte, ScheduleSize+scheduleAlign)
	off := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (scheduleAlign - 1)
	return b[off:][:ScheduleSize:ScheduleSize]
}

func newCipher(tb testing.TB, key []byte) *Cipher {
	tb.Helper()
	s := storage()
	if err := Expand(s, key); err != nil {
		tb.Fatalf("Expand: %v", err)
	}
	return New(s)
}

func newReference(tb testing.TB, key []byte) *refxts.Cipher {
	tb.Helper()
	c, err := refxts.NewCipher(aes.NewCipher, key)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// random is a source with a fixed seed: the tests are the same in every run.
func random(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 'x', 't', 's'})
}

func randomBytes(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	_, _ = r.Read(b) // never fails
	return b
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// useTier runs the test in one tier.
func useTier(tb testing.TB, name string) {
	tb.Helper()
	if err := ForceTier(name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ForceTier("") })
}

// eachTier runs f in every tier of this machine.
func eachTier(t *testing.T, f func(t *testing.T)) {
	for _, name := range Tiers() {
		t.Run(name, func(t *testing.T) {
			useTier(t, name)
			f(t)
		})
	}
}

// reference is what Encrypt and Decrypt should give, by x/crypto on whole sectors.
func reference(ref *refxts.Cipher, src []byte, sectorSize int, pos uint64, dir direction) []byte {
	size := uint64(sectorSize)
	first := pos / size * size
	in := int(pos - first)
	buf := make([]byte, (in+len(src)+sectorSize-1)/sectorSize*sectorSize)
	copy(buf[in:], src)
	for i := 0; i < len(buf); i += sectorSize {
		unit := (first + uint64(i)) / 512
		if s := buf[i:][:sectorSize]; dir == encrypt {
			ref.Encrypt(s, s, unit)
		} else {
			ref.Decrypt(s, s, unit)
		}
	}
	return buf[in:][:len(src)]
}

// crypt runs Encrypt or Decrypt, into other memory or in place.
func crypt(c *Cipher, src []byte, sectorSize int, pos uint64, dir direction, inPlace bool) []byte {
	dst := bytes.Clone(src)
	if inPlace {
		src = dst
	} else {
		clear(dst)
	}
	if dir == encrypt {
		c.Encrypt(dst, src, sectorSize, pos)
	} else {
		c.Decrypt(dst, src, sectorSize, pos)
	}
	return dst
}

// Every range of up to 20 granules at every offset in a sector is what x/crypto
// makes of the whole sectors.
func TestRangesEqualWholeSectors(t *testing.T) {
	eachTier(t, func(t *testing.T) {
		r := random(1)
		for _, keyLen := range []int{32, 64} {
			key := randomBytes(r, keyLen)
			c, ref := newCipher(t, key), newReference(t, key)
			for _, sectorSize := range []int{512, 4096} {
				for from := range 8 {
					for n := range 21 {
						pos := (r.Uint64()>>40*8 + uint64(from)) * GranuleSize
						src := randomBytes(r, n*GranuleSize)
						for _, dir := range []direction{encrypt, decrypt} {
							want := reference(ref, src, sectorSize, pos, dir)
							for _, inPlace := range []bool{false, true} {
								if got := crypt(c, src, sectorSize, pos, dir, inPlace); !bytes.Equal(got, want) {
									t.Fatalf("key %d, sector %d, pos %#x, %d granules, decrypt %v, in place %v: differs from x/crypto at byte %d",
										keyLen, sectorSize, pos, n, dir, inPlace, firstDifference(got, want))
								}
							}
						}
					}
				}
			}
		}
	})
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// A long range over many batches of tweaks, at positions up to the end of what
// a byte position can name.
func TestLongAndFarRanges(t *testing.T) {
	eachTier(t, func(t *testing.T) {
		r := random(2)
		key := randomBytes(r, 64)
		c, ref := newCipher(t, key), newReference(t, key)
		src := randomBytes(r, 300<<10)
		for _, sectorSize := range []int{512, 4096} {
			for _, pos := range []uint64{0, 512, 1 << 32, 1<<41 - 4096, 1<<63 - 512, -uint64(len(src)) - 4096} {
				got := crypt(c, src, sectorSize, pos, encrypt, false)
				if !bytes.Equal(got, reference(ref, src, sectorSize, pos, encrypt)) {
					t.Errorf("sector %d, pos %#x: differs from x/crypto", sectorSize, pos)
				}
				if !bytes.Equal(crypt(c, got, sectorSize, pos, decrypt, true), src) {
					t.Errorf("sector %d, pos %#x: Decrypt(Encrypt(x)) != x", sectorSize, pos)
				}
			}
		}
	})
}

// Units longer than one call of assembly, with every kind of tail: whole blocks
// are what x/crypto gives, the rest what the pure-Go tier gives.
func TestLongUnits(t *testing.T) {
	r := random(6)
	for _, keyLen := range []int{32, 64} {
		key := randomBytes(r, keyLen)
		c, ref := newCipher(t, key), newReference(t, key)
		for _, length := range []int{128 << 10, 128<<10 + 16, 256<<10 - 16, 256<<10 + 368, 384<<10 + 255} {
			src := randomBytes(r, length)
			want := make([]byte, length)
			if length%16 == 0 {
				ref.Encrypt(want, src, 77)
			} else {
				useTier(t, "generic")
				want = unit(c, src, plain64(77), encrypt, false)
			}
			for _, name := range Tiers() {
				useTier(t, name)
				if got := unit(c, src, plain64(77), encrypt, false); !bytes.Equal(got, want) {
					t.Errorf("%s, key %d, %d bytes: wrong ciphertext at byte %d", name, keyLen, length, firstDifference(got, want))
				}
				if got := unit(c, want, plain64(77), decrypt, true); !bytes.Equal(got, src) {
					t.Errorf("%s, key %d, %d bytes: wrong plaintext at byte %d", name, keyLen, length, firstDifference(got, src))
				}
			}
		}
	}
}

// The two sector sizes agree on nothing but the first granule of a 4096-byte
// sector.
func TestSectorSizesDiffer(t *testing.T) {
	c := newCipher(t, randomBytes(random(3), 64))
	small := crypt(c, make([]byte, 8192), 512, 0, encrypt, false)
	large := crypt(c, make([]byte, 8192), 4096, 0, encrypt, false)
	for g := range 16 {
		same := bytes.Equal(small[g*512:][:512], large[g*512:][:512])
		if want := g%8 == 0; same != want {
			t.Errorf("granule %d: equal %v, want %v", g, same, want)
		}
	}
}

func TestBytesPastSrcAreLeftAlone(t *testing.T) {
	eachTier(t, func(t *testing.T) {
		c := newCipher(t, randomBytes(random(4), 64))
		dst := bytes.Repeat([]byte{0xa5}, 2048)
		c.Encrypt(dst[256:], make([]byte, 1024), 512, 0)
		c.EncryptUnit(dst[1600:], make([]byte, 33), [16]byte{})
		for i, b := range dst {
			outside := i < 256 || i >= 1280 && i < 1600 || i >= 1633
			if outside && b != 0xa5 {
				t.Fatalf("byte %d was written", i)
			}
		}
	})
}

// Calls on one Cipher, and a change of the tier meanwhile, don't disturb each
// other.
func TestConcurrentCalls(t *testing.T) {
	r := random(5)
	key := randomBytes(r, 64)
	c, ref := newCipher(t, key), newReference(t, key)
	done := make(chan error)
	const workers = 4
	for w := range workers {
		src := randomBytes(r, 16<<10)
		pos := uint64(w) << 20
		want := reference(ref, src, 4096, pos, encrypt)
		go func() {
			for range 10 {
				if got := crypt(c, src, 4096, pos, encrypt, true); !bytes.Equal(got, want) {
					done <- fmt.Errorf("worker %d: wrong ciphertext", w)
					return
				}
			}
			done <- nil
		}()
	}
	for _, name := range Tiers() {
		useTier(t, name)
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
