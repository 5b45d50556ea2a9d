package keyscan

import (
	"encoding/binary"
	"fmt"
)

// A key schedule of AES (FIPS 197 section 5.2) satisfies w[i] = w[i-Nk] ^ w[i-1]
// for all words w but every Nk-th (and, with 256-bit keys, every fourth): in a
// round key, words 1 to 3 are the exclusive or of their left neighbour and
// the word at the same place in the round key Nk words before. InvMixColumns is linear,
// so round keys of the equivalent inverse cipher satisfy the same, in the
// reverse order. One such triple holds by chance with probability 2^-96.

// form is one way in which a schedule can lie in memory.
type form struct {
	name string
	// stride is the distance of round keys in bytes: 16, or more where each
	// is repeated to fill a vector register.
	stride int
	// dist is the distance in bytes of two related round keys: of neighbours
	// with 128-bit keys, of every second with 256-bit keys.
	dist     int
	reversed bool
	reach    int // bytes from the first round key looked at to the end of the last
}

var (
	strides = [...]int{16, 32, 64}
	keyings = [...]struct {
		name     string
		back     int
		reversed bool
	}{
		{"AES-128 encryption", 1, false}, {"AES-256 encryption", 2, false},
		{"AES-128 decryption", 1, true}, {"AES-256 decryption", 2, true},
	}
)

var forms = func() (all []form) {
	for _, stride := range strides {
		for _, k := range keyings {
			all = append(all, form{
				name:   fmt.Sprintf("%s schedule, round keys %d bytes apart", k.name, stride),
				stride: stride, dist: stride * k.back, reversed: k.reversed,
				reach: stride*k.back + (links-1)*stride + 16,
			})
		}
	}
	return all
}()

// minReach is the least reach of a form.
const minReach = 16 + (links-1)*16 + 16

// links is how many related pairs in a row make a schedule: the middle ones of
// 14 (or 10) rounds, so that a part is found too.
const links = 3

// findSchedules calls found for each place in b, at multiples of 4 bytes,
// where a schedule begins or goes on.
func findSchedules(b []byte, found func(off int, what string)) {
	var last [len(strides) * len(keyings)]int // where the latest one of each form was told
	for i := range last {
		last[i] = -1 << 62
	}
	for off := 0; off+minReach <= len(b); off += 4 {
		// Most memory is empty or regular.
		if w := binary.LittleEndian.Uint64(b[off:]); uint32(w) == uint32(w>>32) {
			continue
		}
		for i := range forms {
			f := &forms[i]
			if off+f.reach > len(b) || !f.related(b, off) || !f.confirmed(b, off) {
				continue
			}
			// A schedule is told once, though it also matches at its later
			// round keys.
			if off-last[i] > f.stride {
				found(off, f.name)
			}
			last[i] = off
		}
	}
}

// related reports whether the round key at off and the one that stands in
// relation to it, which lies after it in memory, are those of a schedule.
func (f *form) related(b []byte, off int) bool {
	early, late := off, off+f.dist
	if f.reversed {
		early, late = late, early
	}
	w := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	return w(late+4)^w(late) == w(early+4) && w(late+8)^w(late+4) == w(early+8) && w(late+12)^w(late+8) == w(early+12)
}

// confirmed looks at more of it, and rules out what has the structure by
// being regular.
func (f *form) confirmed(b []byte, off int) bool {
	for i := 1; i < links; i++ {
		if !f.related(b, off+i*f.stride) {
			return false
		}
	}
	for at := off; at+16 <= off+f.reach; at += f.stride {
		if kinds(b[at:at+16]) < enoughKinds {
			return false
		}
	}
	return true
}
