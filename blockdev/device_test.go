//go:build blockdevice

package blockdev_test

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"

	"sealdisk/blockdev"
	bt "sealdisk/blockdev/blockdevtest"
)

// TestBlockDevice runs on the block device that SEALDISK_TEST_BLOCK_DEVICE
// names, which it overwrites: at least 1 MiB. test/vm gives it one.
func TestBlockDevice(t *testing.T) {
	path := os.Getenv("SEALDISK_TEST_BLOCK_DEVICE")
	if path == "" {
		t.Fatal("SEALDISK_TEST_BLOCK_DEVICE names no block device to overwrite")
	}
	const offset = 16384
	opt := blockdev.FileOptions{Offset: offset, Discard: true}

	f := openFile(t, path, opt)
	if _, err := blockdev.OpenFile(path, opt); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("opened a second time: %v, want EBUSY", err)
	}
	if err := blockdev.ZeroBlockDevice(path, 0, 4096, nil); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("zeroed while in use: %v, want EBUSY", err)
	}
	size := f.Size()
	t.Logf("%d bytes behind the first %d", size, offset)
	check(t, f.WriteAt(bytes.Repeat([]byte{7}, 1<<20-offset), 0, 0))
	check(t, f.Close())
	if err := blockdev.ZeroBlockDevice(path, 0, offset+size+512, nil); !errors.Is(err, blockdev.ErrOutOfRange) {
		t.Errorf("zeroed past the end: %v", err)
	}
	last := int64(0)
	check(t, blockdev.ZeroBlockDevice(path, offset, size, func(done, total int64) {
		if done <= last || total != size {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}))
	if last != size {
		t.Errorf("progress ended at %d of %d", last, size)
	}
	f = openFile(t, path, opt)
	got := make([]byte, 1<<20)
	check(t, f.ReadAt(got, 0))
	if !bytes.Equal(got, make([]byte, 1<<20)) {
		t.Error("zeroed, it reads otherwise")
	}
	fast := f.WriteZeroes(0, 1<<20, blockdev.FastZero) == nil
	t.Logf("the device zeroes fast: %v", fast)
	check(t, f.Close())

	suite := bt.Conformance{
		Open: func(t testing.TB, size int64) blockdev.Device {
			check(t, blockdev.ZeroBlockDevice(path, 0, offset+size, nil))
			opt.Size = size
			return openFile(t, path, opt)
		},
		Reopen:    func(t testing.TB) blockdev.Device { return openFile(t, path, opt) },
		TrimZeros: fast, FastZero: fast, FastNoHole: fast,
	}
	t.Run("File", suite.Run)
	for _, c := range cryptVariants() {
		t.Run("Crypt", encrypted(suite, c).Run)
	}
}

func TestZeroBlockDeviceRefusesFile(t *testing.T) {
	path := t.TempDir() + "/file"
	sparse(t, path, 8192)
	if err := blockdev.ZeroBlockDevice(path, 0, 4096, nil); !errors.Is(err, blockdev.ErrGeometry) {
		t.Errorf("%v, want ErrGeometry", err)
	}
}
