package blockdev_test

import (
	"fmt"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
)

// openCrypt opens a disk of [4096, end) on a storage.
func openCrypt(opt blockdev.CryptOptions) func(blockdev.Storage) (blockdev.Device, error) {
	return func(st blockdev.Storage) (blockdev.Device, error) {
		f, err := blockdev.NewFile(st, blockdev.FileOptions{Offset: 4096, Discard: opt.Discard})
		if err != nil {
			return nil, err
		}
		return blockdev.NewCrypt(f, blockdevtest.Cipher(1), opt)
	}
}

func cryptVariants() []blockdev.CryptOptions {
	return []blockdev.CryptOptions{
		{SectorSize: 4096, Holes: true, Discard: true},
		{SectorSize: 512, Holes: true, Discard: true},
		{SectorSize: 4096, Holes: true},
		{SectorSize: 4096},
	}
}

// TestPowerCut: whatever the power cut leaves, each granule holds what was
// flushed or something newer.
func TestPowerCut(t *testing.T) {
	n := blockdevtest.Count(t, "SEALDISK_POWERCUTS", 1000)
	for _, opt := range cryptVariants() {
		for _, faults := range []bool{false, true} {
			for _, workers := range []int{1, 4} {
				t.Run(fmt.Sprintf("%+v/faults=%v/workers=%d", opt, faults, workers), func(t *testing.T) {
					t.Parallel()
					blockdevtest.PowerCut{
						Open: openCrypt(opt), TrimZeros: opt.Discard, Faults: faults, Workers: workers,
					}.Run(t, blockdevtest.Seed(t, 1), (n+15)/16)
				})
			}
		}
	}
}
