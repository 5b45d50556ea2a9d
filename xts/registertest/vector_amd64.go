package registertest

// XMM copies X0…X15.
//
//go:noescape
func XMM(to *[16][16]byte)

// YMM copies Y0…Y15, on a CPU with AVX.
//
//go:noescape
func YMM(to *[16][32]byte)

// ZMM copies Z0…Z31, on a CPU with AVX-512.
//
//go:noescape
func ZMM(to *[32][64]byte)
