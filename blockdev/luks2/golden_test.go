package luks2

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// An implementation in Python reads the bytes on disk and computes the same
// digest and MAC, for the golden headers and for one sealed now.
func TestPythonComputesTheSameDigestAndMAC(t *testing.T) {
	fresh := newHeader()
	fresh.DataSize = 1 << 40
	for _, g := range append(goldens(t), golden{"sealed now", hex.EncodeToString(testDK(1)), sealed(t, fresh)}) {
		t.Run(g.Name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.img")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := Format(f, g.Header); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("python3", "testdata/independent.py", path, g.DK).CombinedOutput()
			want := hex.EncodeToString(g.Header.Digest.Value) + " " + hex.EncodeToString(g.Header.Token.MAC)
			if err != nil || strings.TrimSpace(string(out)) != want {
				t.Fatalf("%v\n%s\nwant %s", err, out, want)
			}
		})
	}
}
