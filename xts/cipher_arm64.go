//go:build !purego

package xts

// The kernel of arm64 is chosen here; cipher_amd64.go says what the assembly
// functions take.

const (
	batchAES = 8 * blockSize
	// maxCall bounds, in bytes, one call of assembly: the runtime can't stop a
	// goroutine within, so this is what a collection waits for.
	maxCall = 128 << 10
)

// Compiles only if the sectors whose tweaks are encrypted together make one call.
var _ [maxCall - tweakBatch*4096]byte

//go:noescape
func tweaksAES(keys *roundKey, rounds int, ts *[tweakBatch]tweak, n int)

//go:noescape
func encryptAES(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)

//go:noescape
func decryptAES(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)

// One block; the tweak steps to that of the next.
//
//go:noescape
func encryptBlockAES(keys *lane, rounds int, t *tweak, dst, src *byte)

//go:noescape
func decryptBlockAES(keys *lane, rounds int, t *tweak, dst, src *byte)

// encryptTweaks encrypts the first n of ts under key 2; it may do so with more of
// them.
func (s *schedule) encryptTweaks(ts *[tweakBatch]tweak, n int) {
	if inUse() == tierGeneric {
		s.encryptTweaksGeneric(ts, n)
		return
	}
	tweaksAES(&s.tweak[0], int(s.rounds), ts, n)
}

// blocks runs whole blocks of several data units, see blocksGeneric. Several
// units come in whole granules, and in no more than maxCall bytes.
func (s *schedule) blocks(dst, src []byte, ts []tweak, first, per int, dir direction) {
	if inUse() == tierGeneric {
		s.blocksGeneric(dst, src, ts, first, per, dir)
		return
	}
	t, rounds := &ts[0], int(s.rounds)
	for len(src) >= batchAES {
		n := min(len(src), maxCall) / batchAES
		if dir == encrypt {
			encryptAES(&s.enc[0], rounds, t, &dst[0], &src[0], first/batchAES, per/batchAES, n)
		} else {
			decryptAES(&s.dec[0], rounds, t, &dst[0], &src[0], first/batchAES, per/batchAES, n)
		}
		dst, src = dst[n*batchAES:], src[n*batchAES:]
	}
	for len(src) > 0 {
		if dir == encrypt {
			encryptBlockAES(&s.enc[0], rounds, t, &dst[0], &src[0])
		} else {
			decryptBlockAES(&s.dec[0], rounds, t, &dst[0], &src[0])
		}
		dst, src = dst[blockSize:], src[blockSize:]
	}
}
