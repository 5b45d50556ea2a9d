// Package xts implements AES-XTS (IEEE 1619, NIST SP 800-38E) for disks: many
// sectors a call, over key schedules that live in storage the caller owns.
package xts

import (
	"errors"

	refxts "golang.org/x/crypto/xts"

	"crypto/aes"
)

const (
	// GranuleSize is the smallest piece of a sector, in bytes, that Encrypt and
	// Decrypt take.
	GranuleSize = 512
	// ScheduleSize is the storage, in bytes, of one expanded key: every form
	// that any tier reads. It must be aligned to 64 bytes.
	ScheduleSize = 4096
)

var (
	// ErrKeySize: the key is not 32 (AES-128-XTS) or 64 bytes (AES-256-XTS).
	ErrKeySize = errors.New("xts: key must have 32 or 64 bytes")
	// ErrEqualHalves: the two halves of the key are equal (FIPS 140-3 IG C.I).
	ErrEqualHalves = errors.New("xts: the two halves of the key are equal")
)

// Expand expands key into dst (ScheduleSize bytes, 64-byte aligned), for both
// directions and every tier. It keeps nothing.
func Expand(dst, key []byte) error {
	if len(key) != 32 && len(key) != 64 {
		return ErrKeySize
	}
	dst[0] = byte(len(key))
	copy(dst[1:], key)
	return nil
}

// Cipher is a view of an expanded schedule. It holds no key itself, only where the schedule
// is; it is valid as long as that storage is. Calls may be concurrent.
type Cipher struct{ sched []byte }

// New returns the cipher over a schedule that Expand filled.
func New(sched []byte) *Cipher { return &Cipher{sched} }

// Encrypt encrypts src to dst (which may be the same memory; otherwise they must not overlap). The
// bytes are those from byte pos of the device on; pos and len(src) are
// multiples of GranuleSize, sectorSize is 512 or 4096. The tweak of a sector is the number
// of its first 512-byte unit, as dm-crypt's plain64 with LUKS2 (sector n of
// 4096 bytes has tweak 8n). Sectors may be cut by either end of the range.
func (c *Cipher) Encrypt(dst, src []byte, sectorSize int, pos uint64) {
	c.do(dst, src, sectorSize, pos, true)
}

// Decrypt is the inverse of Encrypt.
func (c *Cipher) Decrypt(dst, src []byte, sectorSize int, pos uint64) {
	c.do(dst, src, sectorSize, pos, false)
}

func (c *Cipher) do(dst, src []byte, sectorSize int, pos uint64, enc bool) {
	x, err := refxts.NewCipher(aes.NewCipher, c.sched[1:1+int(c.sched[0])])
	if err != nil {
		panic(err)
	}
	buf := make([]byte, sectorSize)
	for len(src) > 0 {
		in := int(pos % uint64(sectorSize))
		n := min(sectorSize-in, len(src))
		copy(buf[in:], src[:n])
		tweak := pos / uint64(sectorSize) * uint64(sectorSize/512)
		if enc {
			x.Encrypt(buf, buf, tweak)
		} else {
			x.Decrypt(buf, buf, tweak)
		}
		copy(dst[:n], buf[in:])
		dst, src, pos = dst[n:], src[n:], pos+uint64(n)
	}
}
