package luks2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"testing"
)

func TestAnyByteFlippedInOneCopyOpensAndRepairs(t *testing.T) {
	whole := formatted(t, newHeader())
	want, _ := mustRead(t, whole)
	for i := range 2 {
		t.Run(ordinal(i)+" copy", func(t *testing.T) {
			f := whole.clone()
			for pos := range copySize {
				at := copyOffset(i) + int64(pos)
				f.b[at] ^= 1 << (pos % 8)
				h, cond, err := Read(f)
				if err != nil {
					t.Fatalf("byte %d: %v", pos, err)
				}
				if cond.Healthy() || cond.Used != 1-i || cond.Copies[1-i].State != CopyIntact || cond.Copies[i].State > CopyDamaged {
					t.Fatalf("byte %d: condition %v, used %d", pos, cond, cond.Used)
				}
				if !reflect.DeepEqual(h, want) {
					t.Fatalf("byte %d: read %v", pos, h)
				}
				if pos%13 == 0 || pos < 600 {
					fixed := f.clone()
					if err := Repair(fixed); err != nil {
						t.Fatalf("byte %d: %v", pos, err)
					}
					if h, cond := mustRead(t, fixed); !cond.Healthy() || !reflect.DeepEqual(h, want) {
						t.Fatalf("byte %d: repaired to %v, %v", pos, h, cond)
					}
				}
				f.b[at] ^= 1 << (pos % 8)
			}
		})
	}
}

func TestAnyByteFlippedInBothCopiesIsRefused(t *testing.T) {
	f := formatted(t, newHeader())
	for pos := range copySize {
		want := ErrDamaged
		if pos < 6 {
			want = ErrNotLUKS2
		}
		f.b[pos]++
		f.b[copySize+pos]++
		r := &recorder{memFile: *f}
		if h, cond, err := Read(r); !errors.Is(err, want) || h != nil || cond.Used != -1 {
			t.Fatalf("byte %d: %v, %v (%v)", pos, h, err, cond)
		}
		if pos%50 == 0 {
			if err := Repair(r); !errors.Is(err, want) || len(r.ops) != 0 {
				t.Fatalf("byte %d: Repair: %v, %d writes", pos, err, len(r.ops))
			}
			if err := Write(r, sealed(t, newHeader())); !errors.Is(err, want) || len(r.ops) != 0 {
				t.Fatalf("byte %d: Write: %v, %d writes", pos, err, len(r.ops))
			}
		}
		f.b[pos]--
		f.b[copySize+pos]--
	}
}

func TestFileCutShort(t *testing.T) {
	whole := formatted(t, newHeader())
	for _, c := range []struct {
		name   string
		size   int
		want   error
		second CopyState
	}{
		{"empty", 0, ErrNotLUKS2, CopyMissing},
		{"magic only", 6, ErrDamaged, CopyMissing},
		{"half of the first copy", 8000, ErrDamaged, CopyMissing},
		{"first copy only", copySize, nil, CopyMissing},
		{"one byte missing", 2*copySize - 1, nil, CopyDamaged},
		{"whole", 2 * copySize, nil, CopyIntact},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, cond, err := Read(&memFile{whole.b[:c.size]})
			if !errors.Is(err, c.want) || cond.Copies[1].State != c.second {
				t.Fatalf("%v, %v", err, cond)
			}
		})
	}
}

// A bad sector under one copy is survived; under both it is told as what it is.
func TestUnreadableCopies(t *testing.T) {
	whole := formatted(t, newHeader())
	if _, cond := mustRead(t, badSector{whole, 0, copySize}); cond.Used != 1 || cond.Copies[0].State != CopyDamaged {
		t.Fatalf("first unreadable: %v", cond)
	}
	if _, cond := mustRead(t, badSector{whole, copySize + 512, 2 * copySize}); cond.Used != 0 {
		t.Fatalf("second unreadable: %v", cond)
	}
	if _, _, err := Read(badSector{whole, 0, 2 * copySize}); !errors.Is(err, errDisk) || errors.Is(err, ErrDamaged) {
		t.Fatalf("both unreadable: %v", err)
	}
}

// badSector fails reads that touch bytes [from, to).
type badSector struct {
	f        io.ReaderAt
	from, to int64
}

func (b badSector) ReadAt(p []byte, off int64) (int, error) {
	if off < b.to && off+int64(len(p)) > b.from {
		return 0, errDisk
	}
	return b.f.ReadAt(p, off)
}

func TestNewerCopyCounts(t *testing.T) {
	h := newHeader()
	h.Label = "old"
	f := formatted(t, h)
	older := bytes.Clone(f.b)
	h.Label = "new"
	if err := Write(f, h); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		mixed := f.clone()
		copy(mixed.b[copyOffset(i):copyOffset(i)+copySize], older[copyOffset(i):])
		got, cond := mustRead(t, mixed)
		if got.Label != "new" || cond.Used != 1-i || cond.Copies[i].State != CopyStale || cond.Copies[i].SeqID != 1 || cond.Copies[1-i].SeqID != 2 {
			t.Fatalf("stale %s copy: %v, %v", ordinal(i), got, cond)
		}
	}
}

func TestEqualSequenceNumbersButDifferentContent(t *testing.T) {
	a, b := newHeader(), newHeader()
	a.Label, b.Label = "first", "second"
	f := formatted(t, a)
	copy(f.b[copySize:], formatted(t, b).b[copySize:])
	got, cond := mustRead(t, f)
	if got.Label != "first" || cond.Copies[1].State != CopyStale || cond.Healthy() {
		t.Fatalf("%v, %v", got, cond)
	}
	if err := Repair(f); err != nil {
		t.Fatal(err)
	}
	if got, cond := mustRead(t, f); got.Label != "first" || !cond.Healthy() {
		t.Fatalf("repaired: %v, %v", got, cond)
	}
}

func TestWriteRefusesWhatItDidNotRead(t *testing.T) {
	f := formatted(t, newHeader())
	h, _ := mustRead(t, f)
	other, _ := mustRead(t, f)
	if err := Write(f, other); err != nil || other.SeqID != 2 {
		t.Fatalf("%v, sequence number %d", err, other.SeqID)
	}
	r := &recorder{memFile: *f}
	if err := Write(r, h); !errors.Is(err, ErrConflict) || len(r.ops) != 0 {
		t.Fatalf("%v, %d writes", err, len(r.ops))
	}
}

// Random bytes behind a right magic must cost neither memory nor time.
func TestHostileSizes(t *testing.T) {
	whole := formatted(t, newHeader())
	for _, size := range []uint64{0, 1, 4096, 8192, 1 << 22, 1 << 23, 1 << 40, 1 << 63, ^uint64(0)} {
		f := whole.clone()
		binary.BigEndian.PutUint64(f.b[offHdrSize:], size)
		if _, cond := mustRead(t, f); cond.Used != 1 || cond.Copies[0].State != CopyDamaged {
			t.Fatalf("size %d in the first copy: %v", size, cond)
		}
		binary.BigEndian.PutUint64(f.b[copySize+offHdrSize:], size)
		if _, _, err := Read(f); !errors.Is(err, ErrDamaged) {
			t.Fatalf("size %d in both: %v", size, err)
		}
	}
}

// endless is a file of right magic and declared sizes that never ends, and
// counts what is read of it.
type endless struct {
	size uint64
	read int64
}

func (e *endless) ReadAt(p []byte, off int64) (int, error) {
	e.read += int64(len(p))
	clear(p)
	if off == 0 && len(p) >= binSize {
		copy(p, magicPrimary)
		p[offVersion+1] = 2
		binary.BigEndian.PutUint64(p[offHdrSize:], e.size)
		copy(p[offCsumAlg:], "sha256")
	}
	return len(p), nil
}

func TestReadIsBounded(t *testing.T) {
	for _, size := range []uint64{1 << 14, 1 << 15, 1 << 22, 1 << 23, 1 << 26, 1<<64 - 4096} {
		e := &endless{size: size}
		if _, _, err := Read(e); !errors.Is(err, ErrDamaged) || e.read > 1<<22+1<<16 {
			t.Fatalf("size %d: %v, %d bytes read", size, err, e.read)
		}
	}
}

// A right checksum makes neither another version nor a copy from another
// place one of ours.
func TestRightChecksumOverWrongBinaryHeader(t *testing.T) {
	for name, change := range map[string]func(c []byte, i int){
		"version 1":         func(c []byte, _ int) { c[offVersion+1] = 1 },
		"version 3":         func(c []byte, _ int) { c[offVersion+1] = 3 },
		"offset of another": func(c []byte, i int) { binary.BigEndian.PutUint64(c[offHdrOffset:], uint64(copyOffset(1-i))) },
		"size of another":   func(c []byte, _ int) { binary.BigEndian.PutUint64(c[offHdrSize:], 8192) },
		"checksum of SHA-1": func(c []byte, _ int) { copy(c[offCsumAlg:], "sha1\x00\x00") },
		"padding":           func(c []byte, _ int) { c[offPadding] = 1 },
		"late padding":      func(c []byte, _ int) { c[binSize-1] = 1 },
		"label without end": func(c []byte, _ int) { copy(c[offLabel:offCsumAlg], bytes.Repeat([]byte("l"), 48)) },
		"label after NUL":   func(c []byte, _ int) { c[offCsumAlg-1] = 'l' },
		"label in Latin-1":  func(c []byte, _ int) { c[offLabel] = 0xe9 },
		"UUID of a path":    func(c []byte, _ int) { copy(c[offUUID:], "../../etc/passwd") },
	} {
		f := formatted(t, newHeader())
		for i := range 2 {
			c := f.b[copyOffset(i) : copyOffset(i)+copySize]
			change(c, i)
			clear(c[offCsum:offPadding2])
			copy(c[offCsum:], checksum(c[:binSize], bytes.NewReader(c[binSize:])))
		}
		if h, cond, err := Read(f); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v, %v (%v)", name, h, err, cond)
		}
	}
}

func TestSaltsAreFresh(t *testing.T) {
	f := formatted(t, newHeader())
	h, _ := mustRead(t, f)
	seen := map[string]bool{}
	for range 3 {
		for i := range 2 {
			salt := string(f.b[copyOffset(i)+offSalt : copyOffset(i)+offUUID])
			if seen[salt] || bytes.Count([]byte(salt), []byte{0}) > 8 {
				t.Fatalf("salt %x again or not random", salt)
			}
			seen[salt] = true
		}
		if err := Write(f, h); err != nil {
			t.Fatal(err)
		}
	}
}
