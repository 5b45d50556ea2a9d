package secmem

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Writable is the view that the process which fills a Region has of it.
type Writable struct {
	mode Mode
	size int
	mu   sync.Mutex
	m    *mapping
}

// OpenChild maps the first size bytes of f, a Region's descriptor, for
// reading and writing, and locks them. It keeps nothing of f, which the
// caller may close.
//
// Errors: ErrMemlock, ErrSize, or what the kernel said.
func OpenChild(f *os.File, size int) (*Writable, error) {
	if size <= 0 || size%PageSize != 0 {
		return nil, fmt.Errorf("%w: %d is no positive multiple of %d", ErrSize, size, PageSize)
	}
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("key pages: %w", err)
	}
	if st.Size < int64(size) {
		return nil, fmt.Errorf("%w: the descriptor has %d bytes, %d are needed", ErrSize, st.Size, size)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, fmt.Errorf("key pages: %w", err)
	}
	w := &Writable{mode: ModeLocked, size: size}
	if fs.Type == unix.SECRETMEM_MAGIC {
		w.mode = ModeSecret
	}
	var err error
	if w.m, err = mapFD(fd, size, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, err
	}
	if w.mode == ModeLocked { // secret memory is locked by itself
		if err := w.m.lock(); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return w, nil
}

// Bytes is the memory, page aligned; nil after Close.
func (w *Writable) Bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m == nil {
		return nil
	}
	return w.m.mem
}

// Mode says how the pages are protected.
func (w *Writable) Mode() Mode { return w.mode }

// Close ends this process's view and leaves the contents to the Region. It
// may be called again.
func (w *Writable) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m == nil {
		return nil
	}
	if err := w.m.unmap(); err != nil {
		return err
	}
	w.m = nil
	return nil
}
