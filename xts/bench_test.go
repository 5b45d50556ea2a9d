package xts

import (
	"fmt"
	"testing"
)

var benchSizes = []int{512, 4 << 10, 64 << 10, 1 << 20}

// BenchmarkSectors: every tier beside x/crypto/xts (impl=xcrypto), AES-256.
// x/crypto has no pieces of a sector, so it is left out for 512 bytes of a
// 4096-byte sector.
func BenchmarkSectors(b *testing.B) {
	key := randomBytes(random(50), 64)
	c, ref := newCipher(b, key), newReference(b, key)
	buf := randomBytes(random(51), benchSizes[len(benchSizes)-1])
	for _, dir := range []direction{encrypt, decrypt} {
		op, run, refSector := "encrypt", c.Encrypt, ref.Encrypt
		if dir == decrypt {
			op, run, refSector = "decrypt", c.Decrypt, ref.Decrypt
		}
		for _, sectorSize := range []int{512, 4096} {
			for _, size := range benchSizes {
				data := buf[:size]
				name := func(impl string) string {
					return fmt.Sprintf("op=%s/sector=%d/size=%d/impl=%s", op, sectorSize, size, impl)
				}
				for _, tier := range Tiers() {
					b.Run(name(tier), func(b *testing.B) {
						useTier(b, tier)
						b.SetBytes(int64(size))
						b.ReportAllocs()
						for b.Loop() {
							run(data, data, sectorSize, 0)
						}
					})
				}
				if size < sectorSize {
					continue
				}
				b.Run(name("xcrypto"), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						for i := 0; i < size; i += sectorSize {
							s := data[i:][:sectorSize]
							refSector(s, s, uint64(i)/512)
						}
					}
				})
			}
		}
	}
}

// BenchmarkAES128 is the shorter key, 64 KiB in sectors of 4096 bytes.
func BenchmarkAES128(b *testing.B) {
	c := newCipher(b, randomBytes(random(52), 32))
	buf := make([]byte, 64<<10)
	for _, tier := range Tiers() {
		b.Run("impl="+tier, func(b *testing.B) {
			useTier(b, tier)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				c.Encrypt(buf, buf, 4096, 0)
			}
		})
	}
}

func BenchmarkExpand(b *testing.B) {
	sched, key := storage(), randomBytes(random(53), 64)
	for b.Loop() {
		if err := Expand(sched, key); err != nil {
			b.Fatal(err)
		}
	}
}
