package registertest

// XMM copies X0…X15.
//
//go:noescape
func XMM(to *[16][16]byte)

// YMM copies Y0…Y15, on a CPU with AVX.
//
//go:noescape
func YMM(to *[16][32]byte)
