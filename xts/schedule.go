package xts

import (
	"crypto/subtle"
	"encoding/binary"
	"unsafe"
)

// The layout of a schedule: what Expand writes and the tiers read, assembly by
// these offsets (in bytes). It is private to one version of this package and to
// one machine: numbers are in the machine's byte order, nothing is ever stored.
//
// A round key of key 1 takes a 64-byte lane that holds its 16 bytes four times, so
// that one memory operand serves four blocks in a 512-bit register, 32 bytes of it
// two blocks in a 256-bit one, and 16 bytes one block. The narrower tiers go from
// copy to copy, for the sake of the cache's banks. Key 2 does little work
// and is there once. AES-128 fills 11 of the 15 lanes, AES-256 all.
const (
	// offMagic: uint32, scheduleMagic with layoutVersion.
	offMagic = 0
	// offRounds: uint32, 10 (AES-128) or 14 (AES-256); both key halves alike.
	offRounds = 4
	// offTweak: key 2, round keys 0…rounds of the cipher (FIPS 197 section
	// 5.1), in the order of use, 16 bytes each.
	offTweak = 16
	// offEnc: key 1, lanes 0…rounds: the round keys of the cipher, in the order of
	// use.
	offEnc = offTweak + maxRoundKeys*blockSize
	// offDec: key 1, lanes 0…rounds: the round keys of the equivalent inverse
	// cipher (FIPS 197 section 5.3.5) in the order of use: lane 0 is the last
	// encryption round key, lanes 1…rounds-1 went through InvMixColumns (as
	// AESDEC wants them).
	offDec = offEnc + maxRoundKeys*laneSize
	// offSliced: key 1 for the bitsliced cipher, both directions: for each
	// round key 8 uint64, see slicedKey. 64-byte aligned, one cache line each.
	offSliced = offDec + maxRoundKeys*laneSize
	// offSlicedTweak: key 2, as offSliced. It ends the storage.
	offSlicedTweak = offSliced + maxRoundKeys*slicedSize

	maxRoundKeys  = 15
	laneSize      = 64
	slicedSize    = 64
	scheduleAlign = 64

	scheduleMagic = 0x58545300 // "XTS", then the version
	layoutVersion = 2
)

// A lane is a round key, four times.
type lane = [laneSize]byte

// A roundKey is one, once.
type roundKey = [blockSize]byte

// schedule is the same layout for Go code.
type schedule struct {
	magic, rounds uint32
	_             [offTweak - 8]byte
	tweak         [maxRoundKeys]roundKey
	enc           [maxRoundKeys]lane
	dec           [maxRoundKeys]lane
	sliced        slicedKeys
	slicedTweak   slicedKeys
}

// Compiles only if the view covers the storage exactly.
var _ = [1]byte{}[unsafe.Sizeof(schedule{})-ScheduleSize]

// view returns the schedule in b; the caller has checked size and alignment.
func view(b []byte) *schedule { return (*schedule)(unsafe.Pointer(unsafe.SliceData(b))) }

func sizedAndAligned(b []byte) bool {
	return len(b) == ScheduleSize && uintptr(unsafe.Pointer(&b[0]))%scheduleAlign == 0
}

// Check tells whether sched (ScheduleSize bytes, 64-byte aligned; otherwise
// it panics) holds a schedule that this version of the package can use: ErrSchedule
// if it does not. For schedules that another process expanded. It can't tell
// whether the key is the right one.
func Check(sched []byte) error {
	if !sizedAndAligned(sched) {
		panic("xts: a schedule has 4096 bytes, aligned to 64")
	}
	s := view(sched)
	if s.magic != scheduleMagic|layoutVersion || s.rounds != 10 && s.rounds != 14 {
		return ErrSchedule
	}
	return nil
}

// Expand expands key into dst (ScheduleSize bytes, 64-byte aligned, apart from
// key; otherwise it panics), for both directions and every tier. The first
// half of key encrypts data (IEEE 1619's Key1), the second the tweaks (Key2). On
// an error dst is not written.
//
// It keeps nothing, and the part of the stack that it used is overwritten; what
// registers still hold, and copies that a signal or the growth of the stack made
// meanwhile, are not. So call it in a process that ends soon.
//
// Errors: ErrKeySize, ErrEqualHalves.
func Expand(dst, key []byte) error {
	if !sizedAndAligned(dst) {
		panic("xts: a schedule has 4096 bytes, aligned to 64")
	}
	if overlap(dst, key) {
		panic("xts: the key lies within its schedule's storage")
	}
	if len(key) != 32 && len(key) != 64 {
		return ErrKeySize
	}
	key1, key2 := key[:len(key)/2], key[len(key)/2:]
	if subtle.ConstantTimeCompare(key1, key2) == 1 {
		return ErrEqualHalves
	}

	clear(dst)
	expand(view(dst), key1, key2)
	scrubStack()
	return nil
}

// expand is not inlined, so that all it leaves on the stack lies below Expand's
// frame, where scrubStack reaches it.
//
//go:noinline
func expand(s *schedule, key1, key2 []byte) {
	rounds := len(key1)/4 + 6
	expandKey(s.dec[:rounds+1], key2) // for the time being
	sliceKey(s.slicedTweak[:rounds+1], s.dec[:rounds+1])
	for i := range rounds + 1 {
		copy(s.tweak[i][:], s.dec[i][:])
	}
	expandKey(s.enc[:rounds+1], key1)
	invertKey(s.dec[:rounds+1], s.enc[:rounds+1])
	sliceKey(s.sliced[:rounds+1], s.enc[:rounds+1])
	s.rounds = uint32(rounds)
	s.magic = scheduleMagic | layoutVersion // last: half a schedule is none
}

// scrubStack overwrites the stack below its caller's frame, further down than
// expand and what it calls ever reach.
//
//go:noinline
func scrubStack() {
	var frame [4096]byte
	wipe(frame[:])
}

// expandKey is KeyExpansion of FIPS 197 section 5.2 with the bitsliced S-box. All
// its words go straight to lanes.
func expandKey(lanes []lane, key []byte) {
	nk := len(key) / 4
	word := func(i int) []byte { return lanes[i/4][4*(i%4):][:4] }
	rcon := uint32(1)
	for i := range 4 * len(lanes) {
		if i < nk {
			copy(word(i), key[4*i:])
			continue
		}
		w := binary.LittleEndian.Uint32(word(i - 1))
		switch {
		case i%nk == 0:
			w = subWord(w>>8|w<<24) ^ rcon
			rcon = rcon<<1 ^ rcon>>7*0x11b
		case nk == 8 && i%nk == 4:
			w = subWord(w)
		}
		w ^= binary.LittleEndian.Uint32(word(i - nk))
		binary.LittleEndian.PutUint32(word(i), w)
	}
	for i := range lanes {
		for c := blockSize; c < laneSize; c += blockSize {
			copy(lanes[i][c:], lanes[i][:blockSize])
		}
	}
}

// subWord applies the S-box to the four bytes of w: they take four bit positions
// of the sixty-four.
func subWord(w uint32) uint32 {
	const ones = 0x01010101
	b := func(i int) uint64 { return uint64(w >> i & ones) }
	s0, s1, s2, s3, s4, s5, s6, s7 := subBytes(b(0), b(1), b(2), b(3), b(4), b(5), b(6), b(7))
	w = uint32(s0)&ones | uint32(s1)&ones<<1 | uint32(s2)&ones<<2 | uint32(s3)&ones<<3 |
		uint32(s4)&ones<<4 | uint32(s5)&ones<<5 | uint32(s6)&ones<<6 | uint32(s7)&ones<<7
	return w ^ subConst*ones
}

// invertKey writes the round keys of the equivalent inverse cipher.
func invertKey(dec, enc []lane) {
	last := len(enc) - 1
	for i := range dec {
		if i == 0 || i == last {
			dec[i] = enc[last-i]
			continue
		}
		for c := 0; c < laneSize; c += 4 {
			w := binary.LittleEndian.Uint32(enc[last-i][c:])
			binary.LittleEndian.PutUint32(dec[i][c:], invMixColumn(w))
		}
	}
}

// invMixColumn is InvMixColumns (FIPS 197 section 5.3.3) of one column, row 0 in
// the low byte: the matrix circ(5,0,4,0), then MixColumns.
func invMixColumn(w uint32) uint32 {
	w ^= xtime(xtime(w ^ (w>>16 | w<<16)))
	u := w>>8 | w<<24
	t := w ^ u
	return xtime(t) ^ u ^ (t>>16 | t<<16)
}

// xtime multiplies four bytes by x in AES's field.
func xtime(w uint32) uint32 {
	h := w >> 7 & 0x01010101
	return w&0x7f7f7f7f<<1 ^ h ^ h<<1 ^ h<<3 ^ h<<4
}

// sliceKey writes round keys in the form of the bitsliced cipher.
func sliceKey(out []slicedKey, lanes []lane) {
	var block [64]byte
	for r := range lanes {
		// Undo the r ShiftRows that the cipher leaves out: row i moves right by
		// r·i.
		for c := range 4 {
			for row := range 4 {
				for k := range 4 {
					block[16*k+4*((c+r*row)%4)+row] = lanes[r][4*c+row]
				}
			}
		}
		k := &out[r]
		k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7] = slice(&block)
		if r > 0 {
			for b := range k {
				k[b] ^= -(subConst >> b & 1)
			}
		}
	}
}

// wipe clears b; not inlined, so that clearing what is never read again stays.
//
//go:noinline
func wipe(b []byte) { clear(b) }
