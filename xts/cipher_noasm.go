//go:build (!amd64 && !arm64) || purego

package xts

// tiers are those of this build that this CPU runs, the best first.
var tiers = []tier{tierGeneric}

// encryptTweaks encrypts the first n of ts under key 2.
func (s *schedule) encryptTweaks(ts *[tweakBatch]tweak, n int) { s.encryptTweaksGeneric(ts, n) }

// blocks runs whole blocks of several data units, see blocksGeneric.
func (s *schedule) blocks(dst, src []byte, ts []tweak, first, per int, dir direction) {
	s.blocksGeneric(dst, src, ts, first, per, dir)
}
