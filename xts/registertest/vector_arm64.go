package registertest

// V copies V0…V31.
//
//go:noescape
func V(to *[32][16]byte)
