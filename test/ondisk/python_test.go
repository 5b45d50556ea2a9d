package ondisk

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/blockdev/luks2"
)

// golden is one vector of the package's own golden test.
type golden struct {
	Name   string
	DK     string // hexadecimal
	Header *luks2.Header
}

func goldens(t *testing.T) []golden {
	t.Helper()
	text, err := os.ReadFile("../../blockdev/luks2/testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g []golden
	if err := json.Unmarshal(text, &g); err != nil || len(g) < 2 {
		t.Fatalf("%d vectors, %v", len(g), err)
	}
	return g
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
			if err := luks2.Format(f, g.Header); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("python3", "independent.py", path, g.DK).CombinedOutput()
			want := hex.EncodeToString(g.Header.Digest.Value) + " " + hex.EncodeToString(g.Header.Token.MAC)
			if err != nil || strings.TrimSpace(string(out)) != want {
				t.Fatalf("%v\n%s\nwant %s", err, out, want)
			}
		})
	}
}
