// Package xts implements AES-XTS (IEEE 1619-2018, NIST SP 800-38E) for disks:
// many sectors a call, over key schedules that live in storage the caller owns.
//
// Expand writes the schedule of a key into that storage (locked pages, say);
// New gives a Cipher that only points at it. Nothing that depends on the key is
// put on the heap, no call allocates, and no branch or address depends on the
// key, the tweak's value or the data.
//
// Use Encrypt and Decrypt for sectors of a disk. EncryptUnit and DecryptUnit are
// the general form of the standard, for one data unit of any length from 16
// bytes on under any tweak.
//
// XTS hides what is stored and nothing else. It has no integrity: who can write
// the ciphertext can garble any 16-byte block, or put an earlier ciphertext of
// the same block back. Equal data at the same place encrypts equally.
//
// Several tiers do the work (see Tiers); all give the same bytes. Those of amd64
// keep round keys out of registers: each is read from the storage by the
// instruction that uses it, so nothing that saves registers (a signal, say) copies
// a key. The others do not promise that. Every assembly tier clears the vector
// registers before it returns.
package xts

import "errors"

const (
	// GranuleSize is the smallest piece of a sector, in bytes, that Encrypt and
	// Decrypt take.
	GranuleSize = 512
	// ScheduleSize is the storage, in bytes, of one expanded key: every form
	// that any tier reads. It must be aligned to 64 bytes.
	ScheduleSize = 4096
)

var (
	// ErrKeySize is returned by Expand when the key has neither 32 (AES-128-XTS)
	// nor 64 bytes (AES-256-XTS).
	ErrKeySize = errors.New("xts: key must have 32 or 64 bytes")
	// ErrEqualHalves is returned by Expand when the two halves of the key are
	// equal (forbidden by FIPS 140-3 IG C.I).
	ErrEqualHalves = errors.New("xts: the two halves of the key are equal")
	// ErrSchedule is returned by Check when the storage holds no schedule of
	// this version of the package.
	ErrSchedule = errors.New("xts: no key schedule of this version")
	// ErrTier is returned by ForceTier when this build or this CPU has no such
	// tier.
	ErrTier = errors.New("xts: no such tier here")
)

// Cipher is a view of an expanded schedule. It holds no key itself, only where
// the schedule is; it is valid as long as that storage is, and only reads it.
// Calls may be concurrent.
type Cipher struct{ s *schedule }

// New returns the cipher over a schedule that Expand filled. It panics where
// Check returns an error.
func New(sched []byte) *Cipher {
	if err := Check(sched); err != nil {
		panic(err.Error())
	}
	return &Cipher{view(sched)}
}

// Encrypt encrypts src to dst, which may be the same memory; otherwise they must
// not overlap. dst may be longer than src, the excess is left alone.
//
// The bytes are those from byte pos of the device on; pos and len(src) are
// multiples of GranuleSize, sectorSize is 512 or 4096. The tweak of a sector is
// the number of its first 512-byte unit, little-endian, as dm-crypt's plain64 with
// LUKS2 (sector n of 4096 bytes has tweak 8n). Sectors may be cut by either end
// of the range.
//
// It panics on anything else: these are the caller's numbers, not a client's.
func (c *Cipher) Encrypt(dst, src []byte, sectorSize int, pos uint64) {
	c.sectors(dst, src, sectorSize, pos, encrypt)
}

// Decrypt is the inverse of Encrypt.
func (c *Cipher) Decrypt(dst, src []byte, sectorSize int, pos uint64) {
	c.sectors(dst, src, sectorSize, pos, decrypt)
}

type direction bool

const (
	encrypt direction = false
	decrypt direction = true
)

// sectors cuts the range into sectors and encrypts the tweaks of tweakBatch of
// them at a time.
func (c *Cipher) sectors(dst, src []byte, sectorSize int, pos uint64, dir direction) {
	if sectorSize != 512 && sectorSize != 4096 {
		panic("xts: sector size is neither 512 nor 4096")
	}
	if pos%GranuleSize != 0 || len(src)%GranuleSize != 0 {
		panic("xts: range is not made of whole granules")
	}
	if pos+uint64(len(src)) < pos {
		panic("xts: range passes the end of the address space")
	}
	checkBuffers(dst, src)

	in := int(pos % uint64(sectorSize)) // bytes of the first sector before pos
	unit := (pos - uint64(in)) / GranuleSize
	for len(src) > 0 {
		var ts [tweakBatch]tweak
		n := min(tweakBatch, (in+len(src)-1)/sectorSize+1)
		for i := range n {
			ts[i].lo = unit
			unit += uint64(sectorSize / GranuleSize)
		}
		c.s.encryptTweaks(&ts, n)
		for range in / GranuleSize {
			ts[0] = ts[0].mulX32()
		}
		m := min(n*sectorSize-in, len(src))
		c.s.blocks(dst[:m], src[:m], ts[:n], sectorSize-in, sectorSize, dir)
		dst, src, in = dst[m:], src[m:], 0
	}
}
