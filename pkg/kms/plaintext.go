package kms

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// HexInto decodes a JSON string of hexadecimal digits straight into memory of
// the caller: json.Unmarshal hands it a slice of its input, so no copy of a
// key is made on the way. The zero value takes no bytes.
type HexInto struct {
	Dst []byte // where the bytes go; never grown
	N   int    // how many came
}

var errHex = errors.New("not a string of hexadecimal digits of the expected length")

// UnmarshalJSON implements json.Unmarshaler. Its errors never show the input.
func (h *HexInto) UnmarshalJSON(data []byte) error {
	if len(data) < 2 || data[0] != '"' || data[len(data)-1] != '"' {
		return errHex
	}
	digits := data[1 : len(data)-1]
	if hex.DecodedLen(len(digits)) > len(h.Dst) {
		return errHex
	}
	n, err := hex.Decode(h.Dst, digits)
	if err != nil {
		clear(h.Dst)
		return errHex
	}
	h.N = n
	return nil
}

// Format keeps the key out of everything that prints.
func (h HexInto) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "kms.HexInto{…}") }

// MarshalJSON refuses to give the key back.
func (h HexInto) MarshalJSON() ([]byte, error) { return []byte(`"…"`), nil }

// zeros is a reader that fills every buffer with zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// ClearReader overwrites all of br's buffer, through which a key may have
// passed. br reads nothing sensible afterwards.
func ClearReader(br *bufio.Reader) {
	br.Reset(zeros{})
	_, _ = br.Peek(br.Size()) // zeros never fail
}
