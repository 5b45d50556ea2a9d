package blockdev

import "sync"

// Trim implements Device.
func (c *Crypt) Trim(off, length int64, f Flags) error {
	if err := CheckRange(off, length, c.size); err != nil {
		return err
	}
	if !c.trim {
		length = 0 // checked and made durable below, nothing else
	}
	lo, hi := inner(off, length)
	return c.lower.Trim(min(lo, c.size), max(hi-lo, 0), f)
}

// WriteZeroes implements Device.
func (c *Crypt) WriteZeroes(off, length int64, f Flags) error {
	if err := CheckRange(off, length, c.size); err != nil {
		return err
	}
	if !c.holes || f&NoHole != 0 {
		if f&FastZero != 0 {
			return ErrNotSupported
		}
		if err := c.encryptZeros(off, length); err != nil {
			return err
		}
		return c.fua(f)
	}
	lo, hi := inner(off, length)
	if lo >= hi {
		// No whole granule: the edges are written, if only asking says it is
		// fast.
		if f&FastZero != 0 {
			if err := c.lower.WriteZeroes(0, 0, FastZero); err != nil {
				return err
			}
		}
		if err := c.zeroEdges(off, length); err != nil {
			return err
		}
		return c.fua(f)
	}
	edges := lo > off || hi < off+length
	down := f
	if edges {
		down &^= FUA
	}
	// The middle first: it tells whether FastZero is honoured.
	if err := c.lower.WriteZeroes(lo, hi-lo, down); err != nil || !edges {
		return err
	}
	if err := c.zeroEdges(off, lo-off); err != nil {
		return err
	}
	if err := c.zeroEdges(hi, off+length-hi); err != nil {
		return err
	}
	return c.fua(f)
}

// zeroEdges zeroes a range that holds no whole granule.
func (c *Crypt) zeroEdges(off, length int64) error {
	for length > 0 {
		in, n, _ := part(off, length)
		if err := c.zeroEdge(off, in, n); err != nil {
			return err
		}
		off, length = off+int64(n), length-int64(n)
	}
	return nil
}

// zeroEdge zeroes n bytes from in on of the granule that holds byte off. A hole
// stays one.
func (c *Crypt) zeroEdge(off int64, in, n int) error {
	g := getGranule()
	defer putGranule(g)
	off -= int64(in)
	if err := c.lower.ReadAt(g[:], off); err != nil {
		return err
	}
	if isHole(g[:]) {
		return c.lower.WriteZeroes(off, 0, 0) // which may refuse all changes
	}
	c.cipher.Decrypt(g[:], g[:], c.sector, uint64(off))
	clear(g[in : in+n])
	return c.writeGranules(g[:], off, 0)
}

// fillSize is how much encrypted zeros are written at once, in bytes.
const fillSize = 128 << 10

var fills = sync.Pool{New: func() any { return new([fillSize]byte) }}

// encryptZeros stores zeros as data.
func (c *Crypt) encryptZeros(off, length int64) error {
	buf := fills.Get().(*[fillSize]byte)
	defer fills.Put(buf)
	for length > 0 {
		in, n, whole := part(off, min(length, fillSize))
		var err error
		if whole {
			clear(buf[:n])
			err = c.writeGranules(buf[:n], off, 0)
		} else {
			err = c.writeEdge(zeros[:n], off, in)
		}
		if err != nil {
			return err
		}
		off, length = off+int64(n), length-int64(n)
	}
	return nil
}
