package conformance

import (
	"fmt"
	"os"
	"testing"

	"sealdisk/test/testbed"
)

// One copy of the header damaged, wherever: the disk attaches, and the copy is
// whole again.
func TestOneDamagedCopyIsRepaired(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	image := d.Image("vol")
	size := headerSize(t, image)
	inCopy := []int64{0, 5, 6, 7, atHeaderSize + 7, atSequence + 7, 24, 72, 110, atUUID, 256, 300, atChecksum, 1000, binarySize, binarySize + 100, size / 2, size - 1}
	for i, base := range []int64{0, size} {
		for _, off := range inCopy {
			t.Run(fmt.Sprintf("copy %d byte %d", i+1, off), func(t *testing.T) {
				d := d.In(t)
				flip(t, image, base+off)
				d.Attach("vol")
				d.Must("disk", "detach", "vol")
				first, second := part(t, image, 0, size), part(t, image, size, size)
				if !intact(first) || !intact(second) {
					t.Errorf("intact after attach: first %v, second %v", intact(first), intact(second))
				}
			})
		}
	}
}

// Both damaged: refused as corrupt, and nothing is written.
func TestTwoDamagedCopiesAreRefused(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	image := d.Image("vol")
	size := headerSize(t, image)
	flip(t, image, binarySize+10)
	flip(t, image, size+binarySize+20)
	before := digest(t, image)
	d.Refused(10, "disk", "attach", "vol")
	if digest(t, image) != before {
		t.Error("the refused attach changed the file")
	}
	// The damage undone, the disk attaches: refusing was no state of no return.
	flip(t, image, binarySize+10)
	flip(t, image, size+binarySize+20)
	d.Attach("vol")
}

// A disk file cut short is refused, never extended or served in part.
func TestTruncatedFileIsRefused(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	image := d.Image("vol")
	whole := image + ".whole"
	copyFile(t, image, whole)
	for _, size := range []int64{24*mib - 4096, 24*mib - 1, 20 * mib, 16 * mib, mib, 4096, 100, 0} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			d := d.In(t)
			if err := os.Truncate(image, size); err != nil {
				t.Fatal(err)
			}
			d.Refused(10, "disk", "attach", "vol")
			if st, err := os.Stat(image); err != nil || st.Size() != size {
				t.Errorf("the file now has %d bytes: %v", st.Size(), err)
			}
			copyFile(t, whole, image)
		})
	}
	d.Attach("vol")
}
