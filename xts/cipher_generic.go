package xts

import "encoding/binary"

// The pure-Go tier, on every architecture: bitsliced AES, four blocks at a time,
// without tables.

// encryptTweaksGeneric encrypts the first n of ts under key 2.
func (s *schedule) encryptTweaksGeneric(ts *[tweakBatch]tweak, n int) {
	for from := 0; from < n; from += 4 {
		var b [4 * blockSize]byte
		four := ts[from:min(from+4, n)]
		for i, t := range four {
			t.store((*[blockSize]byte)(b[i*blockSize:]))
		}
		encrypt4(s.slicedTweak[:s.rounds+1], &b)
		for i := range four {
			four[i] = loadTweak((*[blockSize]byte)(b[i*blockSize:]))
		}
	}
}

// blocksGeneric runs whole blocks of len(ts) data units that follow one another
// from src to dst: as long as src, the same memory or apart. The first unit has
// first bytes here, the others per, the last what is left of src (all of it, if
// it is the only one). ts[i] is the encrypted tweak of the first block of unit i;
// afterwards that of the last unit is the one of the block after src.
func (s *schedule) blocksGeneric(dst, src []byte, ts []tweak, first, per int, dir direction) {
	for i := range ts {
		n := min(first, len(src))
		s.unitGeneric(dst[:n], src[:n], &ts[i], dir)
		dst, src, first = dst[n:], src[n:], per
	}
}

// unitGeneric is blocksGeneric for one data unit with the tweak *t.
func (s *schedule) unitGeneric(dst, src []byte, t *tweak, dir direction) {
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
