package luks2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// CopyState says in what state one copy of the header is.
type CopyState int

const (
	// CopyMissing: it has no magic.
	CopyMissing CopyState = iota
	// CopyDamaged: torn, flipped, malformed or unreadable.
	CopyDamaged
	// CopyUnsupported: its checksum is right but sealdisk does not write such headers.
	CopyUnsupported
	// CopyStale: intact, but the other copy is newer (a write was cut between
	// the two), or of the same sequence number with another content.
	CopyStale
	// CopyIntact: what it says counts.
	CopyIntact
)

func (s CopyState) String() string {
	switch s {
	case CopyMissing:
		return "missing"
	case CopyDamaged:
		return "damaged"
	case CopyUnsupported:
		return "unsupported"
	case CopyStale:
		return "stale"
	case CopyIntact:
		return "intact"
	}
	return fmt.Sprintf("CopyState(%d)", int(s))
}

// Copy is the state of one copy.
type Copy struct {
	State  CopyState
	SeqID  uint64 // sequence number; 0 for a missing or damaged copy
	Reason string // why it is not intact
}

func (c Copy) String() string {
	s := c.State.String()
	if c.State >= CopyUnsupported {
		s += fmt.Sprintf(" (sequence number %d)", c.SeqID)
	}
	if c.Reason != "" {
		s += ": " + c.Reason
	}
	return s
}

// Condition is the state of both copies: [0] at byte 0, [1] at byte 16384.
type Condition struct {
	Copies [2]Copy
	Used   int // which copy the header was read from; -1 if none
}

// Healthy says whether both copies are intact and equal, so that Repair has nothing to do.
func (c Condition) Healthy() bool {
	return c.Copies[0].State == CopyIntact && c.Copies[1].State == CopyIntact
}

func (c Condition) String() string {
	return "first copy " + c.Copies[0].String() + "; second copy " + c.Copies[1].String()
}

// found is one copy as it was read.
type found struct {
	Copy
	raw []byte // copySize bytes
	hdr *Header
	err error // why it is not intact
}

// Read reads the header from f, which begins with it. Of two intact copies
// that differ the newer counts. The error is ErrNotLUKS2, ErrDamaged or ErrUnsupported (for
// the newest copy whose checksum is right), or f's own; Condition is filled in any case. It reads no
// more than the two copies, except that a foreign header is read to its declared end, at most 4 MiB,
// to check its checksum. Memory does not depend on the content.
//
// Read proves nothing about who wrote the header: that is Verify's.
func Read(f io.ReaderAt) (*Header, Condition, error) {
	copies, used, err := inspect(f)
	cond := Condition{Copies: [2]Copy{copies[0].Copy, copies[1].Copy}, Used: used}
	if err != nil {
		return nil, cond, fmt.Errorf("reading the LUKS2 header: %w", err)
	}
	return copies[used].hdr, cond, nil
}

// inspect reads both copies and says which one counts.
func inspect(f io.ReaderAt) (copies [2]found, used int, err error) {
	for i := range copies {
		copies[i] = readCopy(f, i)
	}
	a, b := &copies[0], &copies[1]
	used = -1
	for i := range copies {
		if c := &copies[i]; c.State >= CopyUnsupported && (used < 0 || c.SeqID > copies[used].SeqID) {
			used = i
		}
	}
	if used < 0 {
		return copies, -1, noCopy(a, b)
	}
	if other := &copies[1-used]; other.State >= CopyUnsupported {
		switch {
		case other.SeqID < copies[used].SeqID:
			other.State, other.Reason = CopyStale, "older than the other"
		case !sameContent(a.raw, b.raw):
			other.State, other.Reason = CopyStale, "differs from the first at the same sequence number"
		}
	}
	if copies[used].State == CopyUnsupported {
		return copies, -1, copies[used].err
	}
	return copies, used, nil
}

// noCopy is the error when no copy's checksum is right.
func noCopy(a, b *found) error {
	switch {
	case a.State == CopyMissing && b.State == CopyMissing:
		return ErrNotLUKS2
	case a.raw == nil && b.raw == nil:
		return joined{a.err, b.err}
	case b.State == CopyMissing && a.raw != nil && binary.BigEndian.Uint16(a.raw[offVersion:]) == 1:
		return fmt.Errorf("%w: it is LUKS version 1", ErrUnsupported)
	}
	errs := []error{ErrDamaged}
	for _, c := range []*found{a, b} {
		if c.err != nil {
			errs = append(errs, c.err)
		}
	}
	return joined(errs)
}

// joined is errors.Join on one line.
type joined []error

func (j joined) Unwrap() []error { return j }

func (j joined) Error() string {
	var s bytes.Buffer
	for i, err := range j {
		if i > 0 {
			s.WriteString("; ")
		}
		s.WriteString(err.Error())
	}
	return s.String()
}

// readCopy reads copy i by itself.
func readCopy(f io.ReaderAt, i int) found {
	c := found{raw: make([]byte, copySize)}
	n, err := f.ReadAt(c.raw, copyOffset(i))
	if n < len(c.raw) && err != io.EOF {
		c.damaged(fmt.Errorf("%s copy can't be read: %w", ordinal(i), err))
		c.raw = nil
		return c
	}
	if !bytes.Equal(c.raw[:len(magicPrimary)], magicOf(i)) {
		c.Reason = "no magic"
		return c
	}
	if n < len(c.raw) {
		c.damaged(fmt.Errorf("%s copy ends after %d bytes", ordinal(i), n))
		return c
	}
	bin, err := decodeBinary(c.raw, i, f)
	h := &Header{UUID: bin.uuid, Label: bin.label, SeqID: bin.seqID, Kept: Kept{Subsystem: bin.subsystem}}
	if err == nil {
		err = decodeArea(c.raw[binSize:], h)
	}
	if err == nil {
		if err = h.check(true); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	switch {
	case errors.Is(err, ErrUnsupported):
		c.State, c.SeqID, c.Reason, c.err = CopyUnsupported, bin.seqID, err.Error(), err
	case err != nil:
		c.damaged(fmt.Errorf("%s copy: %w", ordinal(i), err))
	default:
		c.State, c.SeqID, c.hdr = CopyIntact, bin.seqID, h
	}
	return c
}

func (c *found) damaged(err error) { c.State, c.Reason, c.err = CopyDamaged, err.Error(), err }

func ordinal(i int) string { return [2]string{"first", "second"}[i] }

// sameContent compares two copies apart from magic, salt, offset and checksum,
// in which they always differ.
func sameContent(a, b []byte) bool {
	for _, r := range [][2]int{{offVersion, offSalt}, {offUUID, offHdrOffset}, {binSize, copySize}} {
		if !bytes.Equal(a[r[0]:r[1]], b[r[0]:r[1]]) {
			return false
		}
	}
	return true
}
