package secmem

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Region is memory that another process fills and this one reads.
//
// The order of calls is Create, Descriptor (handed to the other process, which
// uses OpenChild), MapReadOnly once the other process is done, Bytes, Destroy.
type Region struct {
	mode Mode
	size int

	mu     sync.Mutex
	file   *os.File // nil once closed
	m      *mapping // nil once destroyed
	public bool     // MapReadOnly was called
}

// Create makes a region of size bytes, a multiple of PageSize, all zero. It
// maps and locks the pages at once, so that a limit that is too low shows
// before any key is asked for.
//
// Errors: ErrMemlock, ErrSecretUnavailable, ErrSize, or what the kernel said.
func Create(size int, opt Options) (*Region, error) {
	if size <= 0 || size%PageSize != 0 {
		return nil, fmt.Errorf("%w: %d is no positive multiple of %d", ErrSize, size, PageSize)
	}
	if !opt.ForceLocked {
		r, err := createSecret(size)
		if !errors.Is(err, ErrSecretUnavailable) {
			return r, err
		}
	}
	if opt.RequireSecret {
		return nil, ErrSecretUnavailable
	}
	return createLocked(size)
}

func createSecret(size int) (*Region, error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		// Too old, not enabled, or forbidden by a system call filter.
		return nil, fmt.Errorf("%w: %w", ErrSecretUnavailable, err)
	case err != nil:
		return nil, fmt.Errorf("memfd_secret: %w", err)
	}
	r := &Region{mode: ModeSecret, size: size, file: os.NewFile(uintptr(fd), "key pages")}
	// Secret memory takes its size once; a second truncate is refused.
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, errors.Join(fmt.Errorf("size of key pages: %w", err), r.file.Close())
	}
	if r.m, err = mapFD(fd, size, unix.PROT_READ); err != nil {
		return nil, errors.Join(err, r.file.Close())
	}
	return r, nil
}

func createLocked(size int) (*Region, error) {
	fd, err := unix.MemfdCreate("sealdisk-key-pages", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	r := &Region{mode: ModeLocked, size: size, file: os.NewFile(uintptr(fd), "key pages")}
	fail := func(err error) (*Region, error) { return nil, errors.Join(err, r.Destroy()) }
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return fail(fmt.Errorf("size of key pages: %w", err))
	}
	// Nobody who holds the descriptor may shrink it: reading would fault.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return fail(fmt.Errorf("seal key pages: %w", err))
	}
	if r.m, err = mapFD(fd, size, unix.PROT_READ); err != nil {
		return fail(err)
	}
	if err := r.m.lock(); err != nil {
		return fail(err)
	}
	return r, nil
}

// Descriptor returns the descriptor to hand to the process that fills the
// pages. The region keeps it: the caller must not close it, and it is closed
// by MapReadOnly in ModeSecret, else by Destroy.
func (r *Region) Descriptor() (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil || r.file == nil {
		return nil, ErrDestroyed
	}
	return r.file, nil
}

// MapReadOnly makes Bytes give the pages, read-only. In ModeSecret it closes
// the descriptor, after which nothing can change the pages or reach them
// other than through this process's mapping; in ModeLocked the descriptor stays, since
// the pages are zeroed through it.
func (r *Region) MapReadOnly() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		return ErrDestroyed
	}
	if r.mode == ModeSecret && r.file != nil {
		if err := r.file.Close(); err != nil {
			return fmt.Errorf("close the descriptor of the key pages: %w", err)
		}
		r.file = nil
	}
	r.public = true
	return nil
}

// Bytes is the read-only view, page aligned; writing to it faults. It is nil
// before MapReadOnly and after Destroy.
func (r *Region) Bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil || !r.public {
		return nil
	}
	return r.m.mem
}

// Mode says how the pages are protected.
func (r *Region) Mode() Mode { return r.mode }

// Size is the region's size in bytes.
func (r *Region) Size() int { return r.size }

// Destroy zeroes and releases the pages. In ModeSecret the kernel zeroes them
// when the last mapping goes, in ModeLocked they are zeroed through the
// descriptor first. It may be called again, at any stage.
func (r *Region) Destroy() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.file != nil && r.mode == ModeLocked {
		errs = append(errs, zeroFile(r.file, r.size))
	}
	if r.m != nil {
		if err := r.m.unmap(); err != nil {
			errs = append(errs, err)
		} else {
			r.m = nil
		}
	}
	if r.file != nil {
		errs = append(errs, r.file.Close())
		r.file = nil
	}
	return errors.Join(errs...)
}

// zeroFile writes zeros over the first size bytes of f. Punching a hole would
// only free the pages, with what is in them.
func zeroFile(f *os.File, size int) error {
	zeros := make([]byte, PageSize)
	for off := 0; off < size; off += PageSize {
		if _, err := f.WriteAt(zeros, int64(off)); err != nil {
			return fmt.Errorf("zero the key pages: %w", err)
		}
	}
	return nil
}
