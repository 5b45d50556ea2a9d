package luks2

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"testing"
)

// memFile is a File in memory that grows when written.
type memFile struct{ b []byte }

func (m *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *memFile) Sync() error { return nil }

func (m *memFile) clone() *memFile { return &memFile{bytes.Clone(m.b)} }

// testDK is a data key for tests: bytes seed, seed+1, …
func testDK(seed byte) []byte {
	dk := make([]byte, KeySize)
	for i := range dk {
		dk[i] = seed + byte(i)
	}
	return dk
}

// newHeader is a header as a created disk has it, not yet sealed.
func newHeader() *Header {
	return &Header{
		UUID: "6f0d1c1e-8f0a-4f5e-9b1c-2a7d3e4f5a6b", Label: "scratch", SectorSize: 4096, DataOffset: DataOffset,
		Requirements: []string{RequirementHoles},
		Token: Token{
			Provider: "embedded", KeyID: "0d0466b0-e727-4d9c-b35d-f84bb474a37f", KeyVersion: "3",
			WrappedDK: []byte("wrapped-data-key-for-tests"), DiskID: "6f0d1c1e-8f0a-4f5e-9b1c-2a7d3e4f5a6b",
			Project: "default", Generation: 1,
		},
	}
}

func sealed(t testing.TB, h *Header) *Header {
	t.Helper()
	if err := h.Seal(testDK(1)); err != nil {
		t.Fatal(err)
	}
	return h
}

// formatted is a file with a sealed header of two intact copies.
func formatted(t testing.TB, h *Header) *memFile {
	t.Helper()
	f := &memFile{}
	if err := Format(f, sealed(t, h)); err != nil {
		t.Fatal(err)
	}
	return f
}

func mustRead(t testing.TB, f io.ReaderAt) (*Header, Condition) {
	t.Helper()
	h, c, err := Read(f)
	if err != nil {
		t.Fatalf("Read: %v (%v)", err, c)
	}
	return h, c
}

func TestFormatThenReadGivesTheSameHeader(t *testing.T) {
	for name, change := range map[string]func(*Header){
		"as created":    func(*Header) {},
		"512 sectors":   func(h *Header) { h.SectorSize = 512 },
		"fixed size":    func(h *Header) { h.DataSize = 10 << 30 },
		"finalized":     func(h *Header) { h.Requirements = nil },
		"no label":      func(h *Header) { h.Label = "" },
		"label in UTF8": func(h *Header) { h.Label = "données № 1" },
		"rescue key added": func(h *Header) {
			h.Requirements = nil
			h.Kept = Kept{
				Keyslots:       json.RawMessage(`{"0":{"area":{"offset":"32768","size":"258048"},"kdf":{"salt":"a/b+<>"},"key_size":64,"type":"luks2"},"7":{"key_size":64,"type":"luks2"}}`),
				DigestKeyslots: []string{"0", "7"}, TokenKeyslots: []string{"7"}, Flags: []string{"allow-discards", "no-journal"}, Subsystem: "lab",
			}
		},
		"no key version": func(h *Header) {
			h.Token.KeyVersion = ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeader()
			change(h)
			f := formatted(t, h)
			got, cond := mustRead(t, f)
			if !reflect.DeepEqual(got, h) {
				t.Fatalf("read %#v, wrote %#v", got, h)
			}
			if !cond.Healthy() || cond.Used != 0 || cond.Copies[1].SeqID != 1 {
				t.Fatalf("condition %v, used %d", cond, cond.Used)
			}
			if err := got.Verify(testDK(1)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestJSONCarriesTheWholeHeader(t *testing.T) {
	h, _ := mustRead(t, formatted(t, newHeader()))
	h.Kept = Kept{Keyslots: json.RawMessage(`{"0":{"type":"luks2","key_size":64}}`), DigestKeyslots: []string{"0"},
		Flags: []string{"no-read-workqueue"}, Subsystem: "x"}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var got Header
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, h) {
		t.Fatalf("got %#v, want %#v", got, h)
	}
	if err := got.Verify(testDK(1)); err != nil {
		t.Fatal(err)
	}
	if err := got.Verify(testDK(2)); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("another key: %v", err)
	}
}
