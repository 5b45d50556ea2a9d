//go:build !purego

package xts

// golang.org/x/sys/cpu reports VAES only where there is AVX-512 too, so CPUID
// is read here (Intel SDM volume 2A, CPUID; volume 1, section 14.3 for XGETBV).

//go:noescape
func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

// xgetbv reads the low half of XCR0: which registers the system saves.
//
//go:noescape
func xgetbv() (xcr0 uint32)

// tiers are those of this build that this CPU runs, the best first.
var tiers = detect()

func detect() []tier {
	const (
		// Leaf 1, ECX.
		pclmulqdq, ssse3, aes, osxsave, avx = 1 << 1, 1 << 9, 1 << 25, 1 << 27, 1 << 28
		// Leaf 7, EBX; leaf 7, ECX; XCR0.
		avx2, avx512f, avx512bw = 1 << 5, 1 << 16, 1 << 30
		vaes, vpclmulqdq        = 1 << 9, 1 << 10
		xmm, ymm, zmm           = 1 << 1, 1 << 2, 7 << 5
	)
	has := func(reg, bits uint32) bool { return reg&bits == bits }

	tiers := []tier{tierGeneric}
	last, _, _, _ := cpuid(0, 0)
	_, _, c1, _ := cpuid(1, 0)
	if !has(c1, pclmulqdq|ssse3|aes) {
		return tiers
	}
	tiers = append([]tier{tierAESNI}, tiers...)
	if last < 7 || !has(c1, osxsave|avx) || !has(xgetbv(), xmm|ymm) {
		return tiers
	}
	_, b7, c7, _ := cpuid(7, 0)
	if !has(b7, avx2) || !has(c7, vaes|vpclmulqdq) {
		return tiers
	}
	tiers = append([]tier{tierVAES}, tiers...)
	if has(b7, avx512f|avx512bw) && has(xgetbv(), xmm|ymm|zmm) {
		tiers = append([]tier{tierVAES512}, tiers...)
	}
	return tiers
}
