//go:build !race

package blockdev_test

import (
	"bytes"
	"path/filepath"
	"runtime/debug"
	"testing"

	"sealdisk/blockdev"
)

// TestNothingAllocates: no request costs heap, whatever it is and wherever it
// lies. (Not under the race detector, whose sync.Pool forgets on purpose.)
func TestNothingAllocates(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
	for fsName, dir := range fileSystems(t) {
		path := filepath.Join(dir, "disk")
		sparse(t, path, 1<<20)
		f := openFile(t, path, blockdev.FileOptions{Discard: true})
		c, err := blockdev.NewCrypt(f, toy, blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true})
		check(t, err)
		defer c.Close()
		data := bytes.Repeat([]byte("data"), 4096)
		p := make([]byte, len(data))
		extents := make([]blockdev.Extent, 0, 16)
		for devName, d := range map[string]blockdev.Device{"File": f, "Crypt": c, "Serialize": blockdev.Serialize(c)} {
			for name, call := range map[string]func() error{
				"read":              func() error { return d.ReadAt(p[:4096], 4096) },
				"read a big one":    func() error { return d.ReadAt(p, 4096) },
				"read unaligned":    func() error { return d.ReadAt(p[:5000], 4000) },
				"write":             func() error { return d.WriteAt(p[:4096], 4096, 0) },
				"write FUA":         func() error { return d.WriteAt(p[:4096], 4096, blockdev.FUA) },
				"write unaligned":   func() error { return d.WriteAt(p[:5000], 4000, 0) },
				"write a byte, FUA": func() error { return d.WriteAt(p[:1], 4000, blockdev.FUA) },
				"trim":              func() error { return d.Trim(8192, 4096, 0) },
				"zeroes":            func() error { return d.WriteZeroes(8192, 4096, blockdev.FastZero) },
				"zeroes unaligned":  func() error { return d.WriteZeroes(8000, 5000, 0) },
				"zeroes, no hole":   func() error { return d.WriteZeroes(8192, 200000, blockdev.NoHole) },
				"flush":             d.Flush,
				"cache":             func() error { return d.Cache(0, 65536) },
				"extents": func() error {
					_, err := d.Extents(extents, 0, 1<<20, 16)
					return err
				},
				"read now": func() error {
					if err := d.(blockdev.NowReader).ReadNow(p[:4096], 4096); err != blockdev.ErrWouldBlock {
						return err
					}
					return nil
				},
			} {
				if n := testing.AllocsPerRun(20, func() {
					copy(p, data) // the last write encrypted it
					check(t, call())
				}); n != 0 {
					t.Errorf("%s on %s: %s: %v allocations", devName, fsName, name, n)
				}
			}
		}
	}
}
