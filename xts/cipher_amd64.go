//go:build !purego

package xts

// The kernels of amd64 are chosen here; cipher_noasm.go is the same for builds
// without assembly. There is only the pure-Go one so far.

// tiers are those of this build that this CPU runs, the best first.
var tiers = []string{tierGeneric}

// encryptTweaks encrypts the first n of ts under key 2.
func (s *schedule) encryptTweaks(ts *[tweakBatch]tweak, n int) { s.encryptTweaksGeneric(ts, n) }

// blocks runs whole blocks of one data unit, see blocksGeneric.
func (s *schedule) blocks(dst, src []byte, t *tweak, dir direction) {
	s.blocksGeneric(dst, src, t, dir)
}
