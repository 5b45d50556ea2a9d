package blockdev

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
)

// SectorCipher encrypts and decrypts whole granules of a disk; *xts.Cipher is
// one.
//
// dst and src may be the same memory, otherwise they must not overlap. The
// bytes are those from byte pos of the device on; pos and len(src) are
// multiples of GranuleSize; sectors may be cut by either end. Calls may be
// concurrent; nothing is kept.
type SectorCipher interface {
	Encrypt(dst, src []byte, sectorSize int, pos uint64)
	Decrypt(dst, src []byte, sectorSize int, pos uint64)
}

// CryptOptions are fixed for the life of a disk's attachment.
type CryptOptions struct {
	SectorSize int // bytes: 512 or 4096
	// Holes: a granule whose ciphertext is all zero reads as zeros, and zeroing
	// punches. Without it (a finalized disk, or one made with discard off)
	// zeros are encrypted like other data.
	Holes bool
	// Discard: Trim punches. Needs Holes.
	Discard bool
}

// Crypt is a Device that encrypts what it stores on a lower Device. It adds to
// the contract of Device:
//
// Aligned requests are encrypted in the caller's buffer and passed down whole.
// The granule at an edge that a request covers in part is read, changed and
// written in scratch memory that is cleared after use.
//
// A write that would store a granule of zeros, which would read as a hole,
// fails with ErrIO and changes nothing (probability 2^-4096 with a sound
// cipher).
//
// Durability, atomicity and errors are those of the lower device.
type Crypt struct {
	lower  Device
	now    NowReader // lower, or nil
	cipher SectorCipher
	sector int
	size   int64
	holes  bool
	trim   bool
}

// NewCrypt returns a Crypt over lower, which belongs to it from then on. An
// error means options that contradict each other.
func NewCrypt(lower Device, c SectorCipher, opt CryptOptions) (*Crypt, error) {
	if opt.SectorSize != 512 && opt.SectorSize != 4096 {
		return nil, fmt.Errorf("%w: sector size %d, need 512 or 4096", ErrGeometry, opt.SectorSize)
	}
	if lower.Size()%sizeUnit != 0 {
		return nil, fmt.Errorf("%w: size %d is no multiple of %d", ErrGeometry, lower.Size(), sizeUnit)
	}
	if opt.Discard && !opt.Holes {
		return nil, fmt.Errorf("%w: discard without holes", ErrNotSupported)
	}
	x := &Crypt{lower: lower, cipher: c, sector: opt.SectorSize, size: lower.Size(),
		holes: opt.Holes, trim: opt.Discard}
	x.now, _ = lower.(NowReader)
	return x, nil
}

// Size implements Device.
func (c *Crypt) Size() int64 { return c.size }

// ReadAt implements Device.
func (c *Crypt) ReadAt(p []byte, off int64) error { return c.read(p, off, false) }

// ReadNow implements NowReader.
func (c *Crypt) ReadNow(p []byte, off int64) error {
	if c.now == nil {
		return ErrWouldBlock
	}
	return c.read(p, off, true)
}

func (c *Crypt) read(p []byte, off int64, now bool) error {
	if err := CheckRange(off, int64(len(p)), c.size); err != nil {
		return err
	}
	for len(p) > 0 {
		in, n, whole := part(off, int64(len(p)))
		if whole {
			if err := c.readGranules(p[:n], off, now); err != nil {
				return err
			}
		} else {
			g := getGranule()
			err := c.readGranules(g[:], off-int64(in), now)
			copy(p[:n], g[in:])
			putGranule(g)
			if err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// part is the first part of [off, off+length) that is handled in one piece: n
// bytes, either whole granules or bytes from in on of one granule.
func part(off, length int64) (in, n int, whole bool) {
	in = int(off & (GranuleSize - 1))
	if in == 0 && length >= GranuleSize {
		return 0, int(length &^ (GranuleSize - 1)), true
	}
	return in, int(min(GranuleSize-int64(in), length)), false
}

// readGranules reads and decrypts whole granules.
func (c *Crypt) readGranules(p []byte, off int64, now bool) error {
	var err error
	if now {
		err = c.now.ReadNow(p, off)
	} else {
		err = c.lower.ReadAt(p, off)
	}
	if err != nil {
		return err
	}
	c.decrypt(p, off)
	return nil
}

// decrypt decrypts whole granules in place, in runs, leaving holes as they are:
// zeros.
func (c *Crypt) decrypt(p []byte, off int64) {
	run := 0
	if c.holes {
		for i := 0; i < len(p); i += GranuleSize {
			if !isHole(p[i : i+GranuleSize]) {
				continue
			}
			if run < i {
				c.cipher.Decrypt(p[run:i], p[run:i], c.sector, uint64(off)+uint64(run))
			}
			run = i + GranuleSize
		}
	}
	if run < len(p) {
		c.cipher.Decrypt(p[run:], p[run:], c.sector, uint64(off)+uint64(run))
	}
}

// isHole tells whether a granule of ciphertext is all zero. Its first word
// tells it of nearly every granule that is not.
func isHole(g []byte) bool {
	return binary.LittleEndian.Uint64(g) == 0 && bytes.Equal(g, zeros[:GranuleSize])
}

// WriteAt implements Device.
func (c *Crypt) WriteAt(p []byte, off int64, f Flags) error {
	if err := CheckRange(off, int64(len(p)), c.size); err != nil {
		return err
	}
	if _, n, whole := part(off, int64(len(p))); whole && n == len(p) {
		return c.writeGranules(p, off, f)
	}
	// In parts: one Flush is cheaper than each part's FUA.
	for len(p) > 0 {
		in, n, whole := part(off, int64(len(p)))
		var err error
		if whole {
			err = c.writeGranules(p[:n], off, 0)
		} else {
			err = c.writeEdge(p[:n], off, in)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return c.fua(f)
}

func (c *Crypt) fua(f Flags) error {
	if f&FUA == 0 {
		return nil
	}
	return c.lower.Flush()
}

// writeGranules encrypts whole granules in place and writes them.
func (c *Crypt) writeGranules(p []byte, off int64, f Flags) error {
	c.cipher.Encrypt(p, p, c.sector, uint64(off))
	if c.holes {
		for i := 0; i < len(p); i += GranuleSize {
			if isHole(p[i : i+GranuleSize]) {
				return fmt.Errorf("encrypt granule at byte %d: %w: its ciphertext is all zero", off+int64(i), ErrIO)
			}
		}
	}
	return c.lower.WriteAt(p, off, f)
}

// writeEdge writes p over the bytes from in on of the granule that holds byte
// off.
func (c *Crypt) writeEdge(p []byte, off int64, in int) error {
	g := getGranule()
	defer putGranule(g)
	off -= int64(in)
	if err := c.readGranules(g[:], off, false); err != nil {
		return err
	}
	copy(g[in:], p)
	return c.writeGranules(g[:], off, 0)
}

// Flush implements Device.
func (c *Crypt) Flush() error { return c.lower.Flush() }

// Extents implements Device.
func (c *Crypt) Extents(dst []Extent, off, length int64, max int) ([]Extent, error) {
	if c.holes {
		return c.lower.Extents(dst, off, length, max)
	}
	if err := CheckRange(off, length, c.size); err != nil || length == 0 {
		return dst, err
	}
	return append(dst, Extent{Off: off, Len: length}), nil
}

// Cache implements Device.
func (c *Crypt) Cache(off, length int64) error { return c.lower.Cache(off, length) }

// Close implements Device. The cipher may be destroyed afterwards.
func (c *Crypt) Close() error { return c.lower.Close() }

// SyncErr implements SyncReporter.
func (c *Crypt) SyncErr() error {
	if r, ok := c.lower.(SyncReporter); ok {
		return r.SyncErr()
	}
	return nil
}

// granules is scratch for the edges of requests. It holds plaintext while in
// use and zeros while not.
var granules = sync.Pool{New: func() any { return new([GranuleSize]byte) }}

func getGranule() *[GranuleSize]byte { return granules.Get().(*[GranuleSize]byte) }

func putGranule(g *[GranuleSize]byte) {
	clear(g[:])
	granules.Put(g)
}
