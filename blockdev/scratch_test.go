package blockdev_test

import (
	"bytes"
	"testing"

	"sealdisk/blockdev"
	bt "sealdisk/blockdev/blockdevtest"
)

// keeper is a RAM disk that keeps the buffers it was called with.
type keeper struct {
	*bt.RAM
	kept [][]byte
}

func (k *keeper) ReadAt(p []byte, off int64) error {
	k.kept = append(k.kept, p)
	return k.RAM.ReadAt(p, off)
}

func (k *keeper) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	k.kept = append(k.kept, p)
	return k.RAM.WriteAt(p, off, f)
}

// TestCryptClearsScratch: the memory that parts of granules are handled in
// holds nothing when the request has returned.
func TestCryptClearsScratch(t *testing.T) {
	k := &keeper{RAM: bt.NewRAM(65536, nil)}
	c, err := blockdev.NewCrypt(k, toy, blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true})
	check(t, err)
	check(t, c.WriteAt(bytes.Repeat([]byte("secret"), 4096), 0, 0))
	for name, do := range map[string]func() error{
		"read":    func() error { return c.ReadAt(make([]byte, 100), 700) },
		"write":   func() error { return c.WriteAt([]byte("secret"), 1300, 0) },
		"zeroes":  func() error { return c.WriteZeroes(2100, 100, 0) },
		"no hole": func() error { return c.WriteZeroes(2700, 100, blockdev.NoHole) },
	} {
		k.kept = nil
		check(t, do())
		if len(k.kept) == 0 {
			t.Errorf("%s used no scratch", name)
		}
		for _, p := range k.kept {
			if !bytes.Equal(p, make([]byte, len(p))) {
				t.Errorf("%s left %q… in its scratch", name, p[:20])
			}
		}
	}
}
