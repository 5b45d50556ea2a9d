package xts

import "unsafe"

// checkBuffers panics unless dst holds len(src) bytes and is either the same
// memory as src or apart from it.
func checkBuffers(dst, src []byte) {
	if len(dst) < len(src) {
		panic("xts: dst is shorter than src")
	}
	if len(src) == 0 {
		return
	}
	if &dst[0] != &src[0] && overlap(dst[:len(src)], src) {
		panic("xts: dst and src overlap but are not the same")
	}
}

// overlap tells whether a and b share memory.
func overlap(a, b []byte) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	a0, b0 := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	return a0 < b0+uintptr(len(b)) && b0 < a0+uintptr(len(a))
}
