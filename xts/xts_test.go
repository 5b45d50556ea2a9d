package xts

import (
	"bytes"
	"crypto/aes"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	refxts "golang.org/x/crypto/xts"
)

// storage returns ScheduleSize bytes aligned to 64.
func storage() []byte {
	b := make([]byte, ScheduleSize+scheduleAlign)
	off := -uintptr(unsafe.Pointer(&b[0])) & (scheduleAlign - 1)
	return b[off:][:ScheduleSize:ScheduleSize]
}

func TestQuick(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, kl := range []int{32, 64} {
		key := make([]byte, kl)
		for i := range key {
			key[i] = byte(r.Uint32())
		}
		s := storage()
		if err := Expand(s, key); err != nil {
			t.Fatal(err)
		}
		c := New(s)
		x, _ := refxts.NewCipher(aes.NewCipher, key)
		a := make([]byte, 4096)
		for i := range a {
			a[i] = byte(r.Uint32())
		}
		want := make([]byte, 4096)
		x.Encrypt(want, a, 8)
		got := make([]byte, 4096)
		c.Encrypt(got, a, 4096, 4096)
		if !bytes.Equal(got, want) {
			t.Fatalf("%x\n%x", got[:64], want[:64])
		}
		c.Decrypt(got, got, 4096, 4096)
		if !bytes.Equal(got, a) {
			t.Fatalf("dec %x\n%x", got[:64], a[:64])
		}
	}
}

func BenchmarkQ(b *testing.B) {
	for _, kl := range []int{32, 64} {
		key := make([]byte, kl)
		key[0] = 1
		s := storage()
		Expand(s, key)
		c := New(s)
		x, _ := refxts.NewCipher(aes.NewCipher, key)
		buf := make([]byte, 4096)
		b.Run(fmt.Sprint("enc", kl), func(b *testing.B) {
			b.SetBytes(4096)
			for b.Loop() {
				c.Encrypt(buf, buf, 4096, 0)
			}
		})
		b.Run(fmt.Sprint("dec", kl), func(b *testing.B) {
			b.SetBytes(4096)
			for b.Loop() {
				c.Decrypt(buf, buf, 4096, 0)
			}
		})
		b.Run(fmt.Sprint("xcrypto", kl), func(b *testing.B) {
			b.SetBytes(4096)
			for b.Loop() {
				x.Encrypt(buf, buf, 0)
			}
		})
	}
}
