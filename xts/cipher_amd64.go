//go:build !purego

package xts

// The kernels of amd64 are chosen here; cipher_arm64.go and cipher_noasm.go are the
// same for other builds.
//
// The assembly takes the lanes of a schedule, and rounds 10 or 14. The crypt
// functions take whole batches of blocks of several data units: the first unit
// has first batches, every other per, the last what is left of total, which is
// positive. ts[0] is the encrypted tweak of the first unit, and so on; that of the
// last unit becomes the tweak of the block after the last.

const (
	batchVAES512 = GranuleSize
	batchVAES    = 16 * blockSize
	batchAESNI   = 8 * blockSize
	// maxCall bounds, in bytes, one call of assembly: the runtime can't stop a
	// goroutine within, so this is what a collection waits for.
	maxCall = 128 << 10
)

// Compiles only if the sectors whose tweaks are encrypted together make one call.
var _ [maxCall - tweakBatch*4096]byte

//go:noescape
func encryptVAES512(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)

//go:noescape
func decryptVAES512(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)

//go:noescape
func encryptVAES(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)

//go:noescape
func decryptVAES(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)

//go:noescape
func tweaksAESNI(keys *roundKey, rounds int, ts *[tweakBatch]tweak, n int)

//go:noescape
func encryptAESNI(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)

//go:noescape
func decryptAESNI(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)

// One block; the tweak steps to that of the next.
//
//go:noescape
func encryptBlockAESNI(keys *lane, rounds int, t *tweak, dst, src *byte)

//go:noescape
func decryptBlockAESNI(keys *lane, rounds int, t *tweak, dst, src *byte)

// encryptTweaks encrypts the first n of ts under key 2; it may do so with more of
// them. Eight in flight are enough in every tier.
func (s *schedule) encryptTweaks(ts *[tweakBatch]tweak, n int) {
	if inUse() == tierGeneric {
		s.encryptTweaksGeneric(ts, n)
		return
	}
	tweaksAESNI(&s.tweak[0], int(s.rounds), ts, n)
}

// blocks runs whole blocks of several data units, see blocksGeneric. Several
// units come in whole granules, and in no more than maxCall bytes: the first loop
// takes them all. What a wider kernel leaves of one unit goes to the narrower.
func (s *schedule) blocks(dst, src []byte, ts []tweak, first, per int, dir direction) {
	use := inUse()
	if use == tierGeneric {
		s.blocksGeneric(dst, src, ts, first, per, dir)
		return
	}
	t, rounds := &ts[0], int(s.rounds)
	for use == tierVAES512 && len(src) >= batchVAES512 {
		n := min(len(src), maxCall) / batchVAES512
		if dir == encrypt {
			encryptVAES512(&s.enc[0], rounds, t, &dst[0], &src[0], first/batchVAES512, per/batchVAES512, n)
		} else {
			decryptVAES512(&s.dec[0], rounds, t, &dst[0], &src[0], first/batchVAES512, per/batchVAES512, n)
		}
		dst, src = dst[n*batchVAES512:], src[n*batchVAES512:]
	}
	for use != tierAESNI && len(src) >= batchVAES {
		n := min(len(src), maxCall) / batchVAES
		if dir == encrypt {
			encryptVAES(&s.enc[0], rounds, t, &dst[0], &src[0], first/batchVAES, per/batchVAES, n)
		} else {
			decryptVAES(&s.dec[0], rounds, t, &dst[0], &src[0], first/batchVAES, per/batchVAES, n)
		}
		dst, src = dst[n*batchVAES:], src[n*batchVAES:]
	}
	for len(src) >= batchAESNI {
		n := min(len(src), maxCall) / batchAESNI
		if dir == encrypt {
			encryptAESNI(&s.enc[0], rounds, t, &dst[0], &src[0], first/batchAESNI, per/batchAESNI, n)
		} else {
			decryptAESNI(&s.dec[0], rounds, t, &dst[0], &src[0], first/batchAESNI, per/batchAESNI, n)
		}
		dst, src = dst[n*batchAESNI:], src[n*batchAESNI:]
	}
	for len(src) > 0 {
		if dir == encrypt {
			encryptBlockAESNI(&s.enc[0], rounds, t, &dst[0], &src[0])
		} else {
			decryptBlockAESNI(&s.dec[0], rounds, t, &dst[0], &src[0])
		}
		dst, src = dst[blockSize:], src[blockSize:]
	}
}
