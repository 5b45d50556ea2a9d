// Package gonbd presents a block device as the backend of
// github.com/pojntfx/go-nbd, whose server is the baseline that benchmarks
// compare with. It is no part of the product's data path: go-nbd's server knows no FLUSH, FUA
// or TRIM, and serves one request at a time.
package gonbd

import (
	"fmt"
	"io"

	"github.com/pojntfx/go-nbd/pkg/backend"

	"sealdisk/blockdev"
)

// New returns d as a go-nbd backend. Its methods may be called concurrently if
// d was made by blockdev.Serialize, which go-nbd needs: it takes no locks on
// ranges. Sync is the device's Flush.
//
// As io.ReaderAt wants, a read past the end gives what there is and io.EOF;
// a write past the end writes nothing. Buffers stay the caller's and are not changed.
func New(d blockdev.Device) backend.Backend { return &device{d} }

type device struct{ d blockdev.Device }

func (b *device) ReadAt(p []byte, off int64) (int, error) {
	size := b.d.Size()
	if off < 0 {
		return 0, fmt.Errorf("reading at %d: %w", off, blockdev.ErrOutOfRange)
	}
	if off >= size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), size-off))
	if err := b.d.ReadAt(p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt copies p: a device may overwrite what it is given to write.
func (b *device) WriteAt(p []byte, off int64) (int, error) {
	if err := blockdev.CheckRange(off, int64(len(p)), b.d.Size()); err != nil {
		return 0, fmt.Errorf("writing %d bytes at %d: %w", len(p), off, err)
	}
	if err := b.d.WriteAt(append([]byte(nil), p...), off, 0); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (b *device) Size() (int64, error) { return b.d.Size(), nil }

func (b *device) Sync() error { return b.d.Flush() }
