package xts

import "encoding/binary"

// The pure-Go tier, on every architecture: bitsliced AES, four blocks at a time,
// without tables.

const tierGeneric = "generic"

// encryptTweaksGeneric encrypts the first n of ts under key 2.
func (s *schedule) encryptTweaksGeneric(ts *[tweakBatch]tweak, n int) {
	var b [tweakBatch * blockSize]byte
	for i, t := range ts[:n] {
		t.store((*[blockSize]byte)(b[i*blockSize:]))
	}
	encrypt4(s.slicedTweak[:s.rounds+1], &b)
	for i := range ts[:n] {
		ts[i] = loadTweak((*[blockSize]byte)(b[i*blockSize:]))
	}
}

// blocksGeneric runs whole blocks of one data unit from src to dst: as long as
// src, the same memory or apart. *t is the encrypted tweak of the first block,
// and afterwards that of the block after the last.
func (s *schedule) blocksGeneric(dst, src []byte, t *tweak, dir direction) {
	keys := s.sliced[:s.rounds+1]
	for len(src) > 0 {
		var b [4 * blockSize]byte
		var w [8]uint64
		n := min(len(src), len(b))
		in := src
		if n < len(b) { // the blocks that are missing are computed for nothing
			copy(b[:], src)
			in = b[:]
		}
		next := *t
		for i := range 4 {
			w[2*i], w[2*i+1] = next.lo, next.hi
			next = next.mulX()
			if blockSize*(i+1) == n {
				*t = next
			}
		}
		for i := range w {
			binary.LittleEndian.PutUint64(b[8*i:], binary.LittleEndian.Uint64(in[8*i:])^w[i])
		}
		if dir == encrypt {
			encrypt4(keys, &b)
		} else {
			decrypt4(keys, &b)
		}
		for i := range w {
			binary.LittleEndian.PutUint64(b[8*i:], binary.LittleEndian.Uint64(b[8*i:])^w[i])
		}
		copy(dst, b[:n])
		dst, src = dst[n:], src[n:]
	}
}
