package luks2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

// File is what a header is written to: an *os.File opened for reading and
// writing. What WriteAt wrote is durable when a later Sync returned nil. The
// functions here call it from one goroutine; the caller keeps other writers of the header away.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Write replaces the header in f by h, which must be sealed, under the next
// sequence number, and sets h.SeqID. Both copies are durable when it returns nil.
//
// It is crash-safe: one copy, sync, the other copy, sync, beginning with the copy
// that is not needed (a damaged or stale one, else the first); so at any moment
// one copy is whole and Read gives the old header or the new one. After an error the header on
// disk is either of them: read it again.
//
// It returns ErrInvalid for a header that Read would refuse, ErrConflict if the
// header on disk is not the one h was read from, and Read's errors if there is no header to replace.
func Write(f File, h *Header) error {
	if err := write(f, h); err != nil {
		return fmt.Errorf("writing the LUKS2 header: %w", err)
	}
	return nil
}

func write(f File, h *Header) error {
	if err := h.check(true); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	copies, used, err := inspect(f)
	if err != nil {
		return err
	}
	switch seq := copies[used].SeqID; {
	case seq != h.SeqID:
		return fmt.Errorf("%w (sequence number %d, read %d)", ErrConflict, seq, h.SeqID)
	case seq == math.MaxUint64:
		return fmt.Errorf("%w: sequence numbers are used up", ErrUnsupported)
	}
	first := 0
	if copies[1].State != CopyIntact {
		first = 1
	}
	if err := writeCopies(f, h, h.SeqID+1, first); err != nil {
		return err
	}
	h.SeqID++
	return nil
}

// writeCopies writes both copies, copy first before the other, each followed by a sync.
func writeCopies(f File, h *Header, seq uint64, first int) error {
	area, err := encodeArea(h)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	b := binHeader{seqID: seq, uuid: h.UUID, label: h.Label, subsystem: h.Kept.Subsystem}
	for _, i := range [2]int{first, 1 - first} {
		if err := writeCopy(f, b, area, i); err != nil {
			return err
		}
	}
	return nil
}

func writeCopy(f File, b binHeader, area []byte, i int) error {
	raw, err := encodeCopy(b, area, i)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(raw, copyOffset(i)); err != nil {
		return fmt.Errorf("%s copy: %w", ordinal(i), err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%s copy: sync: %w", ordinal(i), err)
	}
	return nil
}

// Format makes h, which must be sealed, the header of f, under sequence number 1,
// and sets h.SeqID. Whatever header was there is wiped and synced first, at every offset
// where LUKS2 keeps a second copy: no crash can bring it back beside the new one. f need not
// be as long as the header; the keyslots area and the data are not touched. Both
// copies are durable when it returns nil.
func Format(f File, h *Header) error {
	if err := format(f, h); err != nil {
		return fmt.Errorf("formatting: %w", err)
	}
	return nil
}

func format(f File, h *Header) error {
	if err := h.check(true); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := wipe(f); err != nil {
		return fmt.Errorf("wiping the old header: %w", err)
	}
	if err := writeCopies(f, h, 1, 0); err != nil {
		return err
	}
	h.SeqID = 1
	return nil
}

// wipe zeroes the start of every copy that has a magic, and syncs if there was one.
func wipe(f File) error {
	found := false
	for i, off := range append([]int64{0}, copySizes...) {
		var magic [6]byte
		switch n, err := f.ReadAt(magic[:], off); {
		case n == len(magic):
		case errors.Is(err, io.EOF):
			continue
		default:
			return err
		}
		if !bytes.Equal(magic[:], magicOf(min(i, 1))) {
			continue
		}
		found = true
		if _, err := f.WriteAt(make([]byte, binSize), off); err != nil {
			return err
		}
	}
	if !found {
		return nil
	}
	return f.Sync()
}

// Repair rewrites the copy that is damaged, missing or stale from the one that
// counts, with the same sequence number, and syncs. It writes nothing if both are
// intact, and nothing if it returns one of Read's errors. It is crash-safe: only the copy
// that does not count is written.
func Repair(f File) error {
	copies, used, err := inspect(f)
	if err != nil {
		return fmt.Errorf("repairing the LUKS2 header: %w", err)
	}
	if copies[1-used].State == CopyIntact {
		return nil
	}
	good := copies[used]
	b := binHeader{seqID: good.SeqID, uuid: good.hdr.UUID, label: good.hdr.Label, subsystem: good.hdr.Kept.Subsystem}
	if err := writeCopy(f, b, good.raw[binSize:], 1-used); err != nil {
		return fmt.Errorf("repairing the LUKS2 header: %w", err)
	}
	return nil
}
