package luks2

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// golden is one entry of testdata/golden.json: a header that version 1 of the
// scheme sealed, with the DK that it was sealed with.
type golden struct {
	Name   string
	DK     string // hexadecimal
	Header *Header
}

func goldens(t *testing.T) []golden {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g []golden
	if err := json.Unmarshal(text, &g); err != nil || len(g) < 2 {
		t.Fatalf("%d vectors, %v", len(g), err)
	}
	return g
}

// Headers on disks out there must verify for ever: if this fails, the format
// has changed, which takes a new version of the scheme.
func TestGoldenHeadersVerify(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.Name, func(t *testing.T) {
			dk, err := hex.DecodeString(g.DK)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Header.Verify(dk); err != nil {
				t.Fatal(err)
			}
		})
	}
}
