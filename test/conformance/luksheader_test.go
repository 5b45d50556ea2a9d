package conformance

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"testing"
)

// What follows reads and writes LUKS2 headers without the product's own code
// (LUKS2 on-disk format 1.1, section 2). Both copies have the size that the
// first one tells; the second follows the first.
const (
	atHeaderSize = 8
	atSequence   = 16
	atUUID       = 168
	atChecksum   = 448
	binarySize   = 4096
)

func headerSize(t *testing.T, image string) int64 {
	t.Helper()
	n := int64(binary.BigEndian.Uint64(part(t, image, atHeaderSize, 8)))
	if n < binarySize || n > 4*mib {
		t.Fatalf("header of %d bytes", n)
	}
	return n
}

// intact says whether the copy's checksum fits.
func intact(header []byte) bool {
	return bytes.Equal(header[atChecksum:atChecksum+32], checksum(header))
}

func checksum(header []byte) []byte {
	c := append([]byte{}, header...)
	clear(c[atChecksum : atChecksum+64])
	sum := sha256.Sum256(c)
	return sum[:]
}

// copies returns both copies of the header.
func copies(t *testing.T, image string) (first, second []byte) {
	t.Helper()
	n := headerSize(t, image)
	return part(t, image, 0, n), part(t, image, n, n)
}

// rewrite changes binary header and JSON of both copies and makes their
// checksums right again: what somebody with the file and without the key
// can do.
func rewrite(t *testing.T, image string, change func(bin []byte, area map[string]any)) {
	t.Helper()
	n := headerSize(t, image)
	for _, at := range []int64{0, n} {
		edit(t, image, at, n, func(header []byte) {
			area := parseArea(t, header)
			change(header[:binarySize], area)
			b, err := json.Marshal(area)
			if err != nil || len(b) >= int(n)-binarySize {
				t.Fatalf("JSON of %d bytes: %v", len(b), err)
			}
			clear(header[binarySize:])
			copy(header[binarySize:], b)
			clear(header[atChecksum : atChecksum+64])
			copy(header[atChecksum:], checksum(header))
		})
	}
}

func parseArea(t *testing.T, header []byte) (area map[string]any) {
	t.Helper()
	if err := json.Unmarshal(bytes.TrimRight(header[binarySize:], "\x00"), &area); err != nil {
		t.Fatal(err)
	}
	return area
}

// in walks a JSON object.
func in(t *testing.T, area map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, p := range path {
		next, ok := area[p].(map[string]any)
		if !ok {
			t.Fatalf("the header has no %q in %v", p, area)
		}
		area = next
	}
	return area
}
