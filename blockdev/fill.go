package blockdev

import (
	"context"
	"fmt"
)

// fillChunk is how much FillHoles looks at at once, in bytes.
const fillChunk = 1 << 20

// FillHoles stores encrypted zeros in every granule of c whose ciphertext is
// all zero, then flushes: what c reads stays the same, and a device without
// holes (dm-crypt) reads the same too. It works whether or not c honours holes.
//
// progress, if not nil, is called on this goroutine after each MiB or so with
// the bytes looked at and the bytes in all; (total, total) comes after the
// flush.
//
// Nobody else may change c meanwhile; reads are allowed where holes are not
// honoured or c's granules are locked. Stopped by ctx, an error or a crash, c
// is as readable as before, and another call goes over what is left.
func FillHoles(ctx context.Context, c *Crypt, progress func(done, total int64)) error {
	buf := make([]byte, fillChunk)
	for off := int64(0); off < c.size; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("fill holes, at byte %d of %d: %w", off, c.size, err)
		}
		p := buf[:min(fillChunk, c.size-off)]
		if err := c.fillHoles(p, off); err != nil {
			return fmt.Errorf("fill holes: %w", err)
		}
		off += int64(len(p))
		if progress != nil && off < c.size {
			progress(off, c.size)
		}
	}
	if err := c.lower.Flush(); err != nil {
		return fmt.Errorf("fill holes: %w", err)
	}
	if progress != nil {
		progress(c.size, c.size)
	}
	return nil
}

// fillHoles fills the holes among the granules that p, scratch, has room for.
func (c *Crypt) fillHoles(p []byte, off int64) error {
	if err := c.lower.ReadAt(p, off); err != nil {
		return err
	}
	for i := 0; i < len(p); {
		if !isHole(p[i : i+GranuleSize]) {
			i += GranuleSize
			continue
		}
		end := i + GranuleSize
		for end < len(p) && isHole(p[end:end+GranuleSize]) {
			end += GranuleSize
		}
		if err := c.writeGranules(p[i:end], off+int64(i), 0); err != nil {
			return err
		}
		i = end
	}
	return nil
}
