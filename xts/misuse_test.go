package xts

import (
	"strings"
	"testing"
)

// Misuse panics, with the package's name in front, and before anything is written.
func TestMisusePanics(t *testing.T) {
	key := randomBytes(random(30), 64)
	c := newCipher(t, key)
	unaligned := make([]byte, 2*ScheduleSize)
	off := 0
	for !sizedAndAligned(unaligned[off:][:ScheduleSize]) {
		off++
	}
	unaligned = unaligned[off+32:][:ScheduleSize]
	inside := storage()
	buf := make([]byte, 16384)
	var tw [16]byte

	for _, v := range []struct {
		name, want string
		call       func()
	}{
		{"Expand, short storage", "4096 bytes", func() { _ = Expand(storage()[:4095], key) }},
		{"Expand, no storage", "4096 bytes", func() { _ = Expand(nil, key) }},
		{"Expand, long storage", "4096 bytes", func() { _ = Expand(make([]byte, 8192), key) }},
		{"Expand, unaligned storage", "aligned to 64", func() { _ = Expand(unaligned, key) }},
		{"Expand, key inside the storage", "within", func() { _ = Expand(inside, inside[100:164]) }},
		{"Check, unaligned storage", "aligned to 64", func() { _ = Check(unaligned) }},
		{"New, short storage", "4096 bytes", func() { New(storage()[:64]) }},
		{"New, empty storage", "no key schedule", func() { New(storage()) }},
		{"sector size 1024", "sector size", func() { c.Encrypt(buf, buf[:1024], 1024, 0) }},
		{"sector size 0", "sector size", func() { c.Decrypt(buf, buf[:512], 0, 0) }},
		{"half a granule", "whole granules", func() { c.Encrypt(buf, buf[:256], 512, 0) }},
		{"one byte too long", "whole granules", func() { c.Decrypt(buf, buf[:513], 512, 0) }},
		{"position between granules", "whole granules", func() { c.Encrypt(buf, buf[:512], 4096, 16) }},
		{"range wraps", "end of the address space", func() { c.Encrypt(buf, buf[:1024], 512, 1<<64-512) }},
		{"dst too short", "shorter than src", func() { c.Encrypt(buf[:512], buf[1024:2048], 512, 0) }},
		{"dst empty", "shorter than src", func() { c.Encrypt(nil, buf[:512], 512, 0) }},
		{"dst one byte ahead", "overlap", func() { c.Encrypt(buf[1:], buf[:512], 512, 0) }},
		{"dst one granule ahead", "overlap", func() { c.Encrypt(buf[512:], buf[:1024], 512, 0) }},
		{"dst one granule behind", "overlap", func() { c.Decrypt(buf, buf[512:1536], 512, 0) }},
		{"unit of 15 bytes", "16 bytes", func() { c.EncryptUnit(buf, buf[:15], tw) }},
		{"unit above 2^20 blocks", "2^20 blocks", func() {
			big := make([]byte, 16<<20+1)
			c.EncryptUnit(big, big, tw)
		}},
		{"unit, dst too short", "shorter than src", func() { c.DecryptUnit(buf[:16], buf[64:81], tw) }},
		{"unit, inexact overlap", "overlap", func() { c.DecryptUnit(buf[16:], buf[:33], tw) }},
	} {
		t.Run(v.name, func(t *testing.T) {
			defer func() {
				msg, _ := recover().(string)
				if !strings.HasPrefix(msg, "xts: ") || !strings.Contains(msg, v.want) {
					t.Errorf("panic %q, want one that begins with \"xts: \" and has %q", msg, v.want)
				}
				for i, b := range buf {
					if b != 0 {
						t.Fatalf("byte %d was written", i)
					}
				}
			}()
			v.call()
		})
	}
}

// What looks like misuse and is not: nothing to do, and buffers that only touch.
func TestAllowedBuffers(t *testing.T) {
	c := newCipher(t, randomBytes(random(31), 64))
	buf := make([]byte, 2048)
	c.Encrypt(nil, nil, 512, 0)
	c.Decrypt(buf, buf[:0], 4096, 1<<64-512)
	c.Encrypt(buf[1024:], buf[:1024], 512, 0)
	c.Decrypt(buf[:1024], buf[1024:], 512, 0)
	c.Decrypt(buf[:1024:1024], buf[1024:2048:2048], 4096, 0)
}
