package xts

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"errors"
	"math/bits"
	"testing"
	"unsafe"
)

// The offsets that assembly reads by are those of the struct that Go writes by.
func TestLayout(t *testing.T) {
	var s schedule
	for _, f := range []struct {
		name      string
		got, want uintptr
		align     uintptr
	}{
		{"magic", unsafe.Offsetof(s.magic), offMagic, 4},
		{"rounds", unsafe.Offsetof(s.rounds), offRounds, 4},
		{"enc", unsafe.Offsetof(s.enc), offEnc, laneSize},
		{"dec", unsafe.Offsetof(s.dec), offDec, laneSize},
		{"tweak", unsafe.Offsetof(s.tweak), offTweak, blockSize},
		{"sliced", unsafe.Offsetof(s.sliced), offSliced, slicedSize},
		{"slicedTweak", unsafe.Offsetof(s.slicedTweak), offSlicedTweak, slicedSize},
	} {
		if f.got != f.want || f.want%f.align != 0 {
			t.Errorf("%s is at %d, its constant says %d, alignment %d", f.name, f.got, f.want, f.align)
		}
	}
}

// FIPS 197 appendix A: the last words of the expanded example keys.
func TestExpandFIPS197(t *testing.T) {
	for _, v := range []struct{ name, key, last string }{
		{"AES-128", "2b7e151628aed2a6abf7158809cf4f3c", "d014f9a8c9ee2589e13f0cc8b6630ca6"},
		{"AES-256", "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "fe4890d1e6188d0b046df344706c631e"},
	} {
		t.Run(v.name, func(t *testing.T) {
			key := unhex(t, v.key)
			sched := storage()
			if err := Expand(sched, append(key, make([]byte, len(key))...)); err != nil {
				t.Fatal(err)
			}
			s := view(sched)
			for _, half := range [][]byte{s.enc[s.rounds][:16], s.enc[s.rounds][48:], s.dec[0][:16], s.dec[0][48:]} {
				if !bytes.Equal(half, unhex(t, v.last)) {
					t.Errorf("last round key %x, want %s", half, v.last)
				}
			}
		})
	}
}

// The round keys of both directions, run through a cipher written after the
// text of FIPS 197, do what crypto/aes does with the key; the lanes hold them
// twice; nothing else is written.
func TestRoundKeysActLikeCryptoAES(t *testing.T) {
	r := random(10)
	sbox, inv := sboxes()
	for i := range 200 {
		half := 16 + i%2*16
		key := randomBytes(r, 2*half)
		sched := storage()
		if err := Expand(sched, key); err != nil {
			t.Fatal(err)
		}
		s := view(sched)
		if want := half/4 + 6; int(s.rounds) != want {
			t.Fatalf("rounds = %d, want %d", s.rounds, want)
		}
		key1, _ := aes.NewCipher(key[:half])
		key2, _ := aes.NewCipher(key[half:])
		in := [16]byte(randomBytes(r, 16))
		var want [16]byte
		key1.Encrypt(want[:], in[:])
		if got := plainEncrypt(s.enc[:s.rounds+1], in, sbox); got != want {
			t.Fatalf("key 1, encryption lanes: %x, want %x", got, want)
		}
		key1.Decrypt(want[:], in[:])
		if got := plainDecrypt(s.dec[:s.rounds+1], in, inv); got != want {
			t.Fatalf("key 1, decryption lanes: %x, want %x", got, want)
		}
		key2.Encrypt(want[:], in[:])
		if got := plainEncrypt(widen(s.tweak[:s.rounds+1]), in, sbox); got != want {
			t.Fatalf("key 2: %x, want %x", got, want)
		}
		for _, lanes := range [][maxRoundKeys]lane{s.enc, s.dec} {
			for j, l := range lanes {
				if !bytes.Equal(l[:], bytes.Repeat(l[:16], 4)) {
					t.Fatalf("lane %d is not one round key four times", j)
				}
				if j > int(s.rounds) && l != (lane{}) {
					t.Fatalf("lane %d of an unused round is written", j)
				}
			}
		}
		for j, k := range s.tweak[s.rounds+1:] {
			if k != (roundKey{}) {
				t.Fatalf("key 2, unused round %d is written", int(s.rounds)+1+j)
			}
		}
	}
}

// widen puts round keys into lanes.
func widen(keys []roundKey) []lane {
	lanes := make([]lane, len(keys))
	for i, k := range keys {
		copy(lanes[i][:], k[:])
	}
	return lanes
}

// sboxes makes S-box and inverse from their definition, FIPS 197 section 5.1.1.
func sboxes() (sbox, inv [256]byte) {
	for x := range 256 {
		y := byte(1) // x^254 is the inverse, and 0 for 0
		for range 254 {
			y = gfMul(y, byte(x))
		}
		s := y ^ bits.RotateLeft8(y, 1) ^ bits.RotateLeft8(y, 2) ^ bits.RotateLeft8(y, 3) ^ bits.RotateLeft8(y, 4) ^ 0x63
		sbox[x], inv[s] = s, byte(x)
	}
	return sbox, inv
}

func gfMul(a, b byte) (p byte) {
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		carry := a >> 7
		a = a<<1 ^ carry*0x1b
	}
	return p
}

func plainEncrypt(lanes []lane, b [16]byte, sbox [256]byte) [16]byte {
	return plainRounds(lanes, b, sbox, 1, [4]byte{2, 3, 1, 1})
}

// plainDecrypt is the equivalent inverse cipher, FIPS 197 section 5.3.5.
func plainDecrypt(lanes []lane, b [16]byte, inv [256]byte) [16]byte {
	return plainRounds(lanes, b, inv, 3, [4]byte{14, 11, 13, 9})
}

// plainRounds: row i shifts left by i·shift columns, the columns are multiplied
// by the circulant of mix.
func plainRounds(lanes []lane, b [16]byte, sbox [256]byte, shift int, mix [4]byte) [16]byte {
	for i := range lanes {
		if i > 0 {
			var s [16]byte
			for c := range 4 {
				for r := range 4 {
					s[4*c+r] = sbox[b[4*((c+r*shift)%4)+r]]
				}
			}
			b = s
			for c := 0; c < 4 && i < len(lanes)-1; c++ {
				for r := range 4 {
					b[4*c+r] = 0
					for k := range 4 {
						b[4*c+r] ^= gfMul(s[4*c+(r+k)%4], mix[k])
					}
				}
			}
		}
		for j := range b {
			b[j] ^= lanes[i][j]
		}
	}
	return b
}

// The circuits against the definition, for every byte in every position of the
// words.
func TestSboxCircuits(t *testing.T) {
	sbox, inv := sboxes()
	for base := 0; base < 256; base += 64 {
		var q [8]uint64
		for i := range 64 {
			for b := range q {
				q[b] |= uint64(base+i) >> b & 1 << i
			}
		}
		var f, g [8]uint64
		f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7] = subBytes(q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7])
		g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7] = invSubBytes(q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7])
		for i := range 64 {
			var fwd, bwd byte
			for b := range 8 {
				fwd |= byte(f[b]>>i&1) << b
				bwd |= byte(g[b]>>i&1) << b
			}
			x := byte(base + i)
			if fwd != sbox[x]^0x63 {
				t.Errorf("subBytes(%#x) = %#x, want %#x", x, fwd, sbox[x]^0x63)
			}
			if bwd != inv[x^0x63] {
				t.Errorf("invSubBytes(%#x) = %#x, want %#x", x, bwd, inv[x^0x63])
			}
		}
	}
}

// slice puts every bit where bitslice.go says it is.
func TestSliceOrder(t *testing.T) {
	for i := range 512 {
		var b [64]byte
		b[i/8] = 1 << (i % 8)
		var q [8]uint64
		q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7] = slice(&b)
		block, column, row, bit := i/128, i/32%4, i/8%4, i%8
		var want [8]uint64
		want[bit] = 1 << (16*row + 4*column + block)
		if q != want {
			t.Fatalf("bit %d of block %d, row %d, column %d: %x, want %x", bit, block, row, column, q, want)
		}
		var back [64]byte
		unslice(&back, q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7])
		if back != b {
			t.Fatalf("unslice(slice) of bit %d: %x", i, back)
		}
	}
}

// The multiplications are those of IEEE 1619: shift left by one, 0x87 for the
// carry.
func TestTweakMultiplication(t *testing.T) {
	r := random(11)
	for range 1000 {
		b := [16]byte(randomBytes(r, 16))
		x := loadTweak(&b)
		jump := x.mulX32()
		for range 32 {
			var carry byte
			for i := range b {
				b[i], carry = b[i]<<1|carry, b[i]>>7
			}
			b[0] ^= 0x87 * carry
			x = x.mulX()
			if x != loadTweak(&b) {
				t.Fatalf("mulX: %x, want %x", x, b)
			}
		}
		if jump != x {
			t.Fatalf("mulX32: %x, 32 times mulX: %x", jump, x)
		}
		var stored [16]byte
		if x.store(&stored); stored != b {
			t.Fatalf("store: %x, want %x", stored, b)
		}
	}
}

func TestExpandRefuses(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 48, 63, 65, 128} {
		dst := storage()
		if err := Expand(dst, make([]byte, n)); !errors.Is(err, ErrKeySize) {
			t.Errorf("key of %d bytes: %v, want ErrKeySize", n, err)
		}
	}
	r := random(12)
	for _, half := range []int{16, 32} {
		key := randomBytes(r, half)
		key = append(key, key...)
		dst := storage()
		if err := Expand(dst, key); !errors.Is(err, ErrEqualHalves) {
			t.Errorf("equal halves of %d bytes: %v, want ErrEqualHalves", half, err)
		}
		if !bytes.Equal(dst, make([]byte, ScheduleSize)) {
			t.Error("a refused Expand wrote to dst")
		}
		for i := range key { // one bit anywhere makes them differ
			key[i] ^= 0x80
			if err := Expand(dst, key); err != nil {
				t.Errorf("halves that differ in byte %d: %v", i, err)
			}
			key[i] ^= 0x80
		}
	}
}

// What the storage held before is gone: it may have been a longer key.
func TestExpandOverwritesEverything(t *testing.T) {
	key := randomBytes(random(13), 32)
	clean, dirty := storage(), storage()
	for i := range dirty {
		dirty[i] = 0xff
	}
	if err := errors.Join(Expand(clean, key), Expand(dirty, key)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(clean, dirty) {
		t.Errorf("old content shows through at byte %d", firstDifference(clean, dirty))
	}
}

func TestCheck(t *testing.T) {
	sched := storage()
	if err := Check(sched); !errors.Is(err, ErrSchedule) {
		t.Errorf("empty storage: %v, want ErrSchedule", err)
	}
	if err := Expand(sched, randomBytes(random(14), 64)); err != nil {
		t.Fatal(err)
	}
	if err := Check(sched); err != nil {
		t.Errorf("a good schedule: %v", err)
	}
	for _, v := range []struct {
		name  string
		off   int
		value uint32
	}{
		{"another version", offMagic, scheduleMagic | layoutVersion + 1},
		{"no rounds", offRounds, 0},
		{"rounds of AES-192", offRounds, 12},
		{"rounds past the lanes", offRounds, 15},
	} {
		bad := storage()
		copy(bad, sched)
		binary.NativeEndian.PutUint32(bad[v.off:], v.value)
		if err := Check(bad); !errors.Is(err, ErrSchedule) {
			t.Errorf("%s: %v, want ErrSchedule", v.name, err)
		}
	}
}
