package luks2

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Sizes in bytes (LUKS2 on-disk format, section 2). They are cryptsetup's defaults.
const (
	binSize      = 4096
	copySize     = 16384 // binary header and JSON area
	jsonSize     = copySize - binSize
	keyslotsSize = DataOffset - 2*copySize
)

// The fields of the binary header: offset and size in bytes, integers big-endian.
const (
	offMagic     = 0   // 6
	offVersion   = 6   // uint16
	offHdrSize   = 8   // uint64
	offSeqID     = 16  // uint64
	offLabel     = 24  // 48, NUL-terminated
	offCsumAlg   = 72  // 32, NUL-terminated
	offSalt      = 104 // 64
	offUUID      = 168 // 40, NUL-terminated
	offSubsystem = 208 // 48, NUL-terminated
	offHdrOffset = 256 // uint64
	offPadding   = 264 // 184 zeros
	offCsum      = 448 // 64, of which SHA-256 uses 32
	offPadding2  = 512 // zeros to 4096
)

var (
	magicPrimary   = []byte("LUKS\xba\xbe")
	magicSecondary = []byte("SKUL\xba\xbe")
	// copySizes are the sizes of a copy that the format allows; a secondary
	// copy therefore begins at one of these offsets.
	copySizes = []int64{0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000}
)

// binHeader is the meaning of the binary header.
type binHeader struct {
	seqID                  uint64
	uuid, label, subsystem string
}

func copyOffset(i int) int64 { return int64(i) * copySize }

func magicOf(i int) []byte {
	if i == 0 {
		return magicPrimary
	}
	return magicSecondary
}

// encodeCopy makes copy i (0 or 1) with a fresh salt. area is the JSON area.
func encodeCopy(b binHeader, area []byte, i int) ([]byte, error) {
	raw := make([]byte, copySize)
	copy(raw[offMagic:], magicOf(i))
	binary.BigEndian.PutUint16(raw[offVersion:], 2)
	binary.BigEndian.PutUint64(raw[offHdrSize:], copySize)
	binary.BigEndian.PutUint64(raw[offSeqID:], b.seqID)
	copy(raw[offLabel:offLabel+47], b.label)
	copy(raw[offCsumAlg:], "sha256")
	if _, err := rand.Read(raw[offSalt:offUUID]); err != nil {
		return nil, fmt.Errorf("making the header's salt: %w", err)
	}
	copy(raw[offUUID:offUUID+39], b.uuid)
	copy(raw[offSubsystem:offSubsystem+47], b.subsystem)
	binary.BigEndian.PutUint64(raw[offHdrOffset:], uint64(copyOffset(i)))
	copy(raw[binSize:], area)
	sum := checksum(raw[:binSize], bytes.NewReader(raw[binSize:]))
	copy(raw[offCsum:], sum)
	return raw, nil
}

// checksum is SHA-256 over the binary header with its checksum field zero, and
// over the JSON area. It returns nil if area can't be read.
func checksum(bin []byte, area io.Reader) []byte {
	h := sha256.New()
	h.Write(bin[:offCsum])
	h.Write(make([]byte, offPadding2-offCsum))
	h.Write(bin[offPadding2:binSize])
	if _, err := io.Copy(h, area); err != nil {
		return nil
	}
	return h.Sum(nil)
}

func checksumOK(bin []byte, area io.Reader) bool {
	sum := checksum(bin, area)
	return subtle.ConstantTimeCompare(sum, bin[offCsum:offCsum+sha256.Size]) == 1
}

// decodeBinary checks copy i down to its checksum and returns the binary
// header's meaning. An error that is ErrUnsupported comes from an intact copy;
// every other one says how the copy is damaged. f serves only to check a foreign header
// whose copies are larger than ours.
func decodeBinary(raw []byte, i int, f io.ReaderAt) (binHeader, error) {
	var b binHeader
	if v := binary.BigEndian.Uint16(raw[offVersion:]); v != 2 {
		return b, fmt.Errorf("version %d", v)
	}
	b.seqID = binary.BigEndian.Uint64(raw[offSeqID:])
	if off := binary.BigEndian.Uint64(raw[offHdrOffset:]); off != uint64(copyOffset(i)) {
		return b, fmt.Errorf("says it belongs at byte %d", off)
	}
	if alg, err := fixedString(raw[offCsumAlg:offSalt]); err != nil || alg != "sha256" {
		return b, errors.New("unknown checksum algorithm")
	}
	size := binary.BigEndian.Uint64(raw[offHdrSize:])
	if size != copySize {
		if i != 0 || size > 1<<22 || !slices.Contains(copySizes, int64(size)) {
			return b, fmt.Errorf("header size %d", size)
		}
		if !checksumOK(raw[:binSize], io.NewSectionReader(f, binSize, int64(size)-binSize)) {
			return b, errors.New("checksum differs")
		}
		return b, fmt.Errorf("%w: header copies of %d bytes, want %d", ErrUnsupported, size, copySize)
	}
	if !checksumOK(raw[:binSize], bytes.NewReader(raw[binSize:])) {
		return b, errors.New("checksum differs")
	}
	// The checksum does not cover the end of its own field.
	if !zero(raw[offCsum+sha256.Size : offPadding2]) {
		return b, errors.New("bytes after the checksum")
	}
	if !zero(raw[offPadding:offCsum]) || !zero(raw[offPadding2:binSize]) {
		return b, fmt.Errorf("%w: padding of the binary header is not zero", ErrUnsupported)
	}
	for _, s := range []struct {
		dst  *string
		raw  []byte
		name string
	}{
		{&b.label, raw[offLabel:offCsumAlg], "label"},
		{&b.uuid, raw[offUUID:offSubsystem], "uuid"},
		{&b.subsystem, raw[offSubsystem:offHdrOffset], "subsystem"},
	} {
		var err error
		if *s.dst, err = fixedString(s.raw); err != nil {
			return b, fmt.Errorf("%w: %s: %w", ErrUnsupported, s.name, err)
		}
	}
	return b, nil
}

// fixedString reads a NUL-terminated string from a field with zeros to its
// end. What is in it is for check to judge.
func fixedString(field []byte) (string, error) {
	n := bytes.IndexByte(field, 0)
	if n < 0 || !zero(field[n:]) {
		return "", errors.New("not ended by zeros")
	}
	return string(field[:n]), nil
}

// checkText says whether s is printable UTF-8 of at most limit bytes.
func checkText(s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("longer than %d bytes", limit)
	}
	if !utf8.ValidString(s) {
		return errors.New("not UTF-8")
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return errors.New("unprintable character")
		}
	}
	return nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
