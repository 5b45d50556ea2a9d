package luks2

import (
	"bytes"
	"testing"
)

func BenchmarkSeal(b *testing.B) {
	h, dk := newHeader(), testDK(1)
	for b.Loop() {
		if err := h.Seal(dk); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	h, dk := sealed(b, newHeader()), testDK(1)
	for b.Loop() {
		if err := h.Verify(dk); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	r := bytes.NewReader(formatted(b, newHeader()).b)
	for b.Loop() {
		if _, _, err := Read(r); err != nil {
			b.Fatal(err)
		}
	}
}
