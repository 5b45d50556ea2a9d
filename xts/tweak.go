package xts

import "encoding/binary"

// tweak is an element of GF(2^128) as IEEE 1619 (section 5.2) writes it: bit i of
// lo is the coefficient of x^i, bit i of hi that of x^(64+i); modulo
// x^128 + x^7 + x^2 + x + 1.
type tweak struct{ lo, hi uint64 }

// loadTweak reads the 16 bytes of a data unit's number or of its encryption.
func loadTweak(b *[blockSize]byte) tweak {
	return tweak{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
}

// store is the inverse of loadTweak.
func (t tweak) store(b *[blockSize]byte) {
	binary.LittleEndian.PutUint64(b[:], t.lo)
	binary.LittleEndian.PutUint64(b[8:], t.hi)
}

// tweakBatch is how many tweaks are encrypted together: eight registers of two
// blocks, what the widest tier has in flight.
const tweakBatch = 16

// mulX returns t·x, in constant time.
func (t tweak) mulX() tweak {
	carry := uint64(int64(t.hi)>>63) & 0x87
	return tweak{t.lo<<1 ^ carry, t.hi<<1 | t.lo>>63}
}

// mulX32 returns t·x^32, in constant time: the step from one granule of 32
// blocks to the next in the same sector. It is one shift by 32 bits, whose 32 bits
// of overflow are reduced at once (they stay below x^64 even times x^7); so the
// last granule of a 4096-byte sector is 7 such steps away, some 50 instructions,
// where walking block by block would take 224 doublings.
func (t tweak) mulX32() tweak {
	c := t.hi >> 32
	return tweak{t.lo<<32 ^ c ^ c<<1 ^ c<<2 ^ c<<7, t.hi<<32 | t.lo>>32}
}
