package secmem

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Buffer is scratch memory for a key within one process: anonymous, locked,
// left out of cores and forked children, between guard pages.
type Buffer struct {
	size int
	mu   sync.Mutex
	m    *mapping
}

// Lock returns a buffer of size bytes, all zero. The last byte lies right
// before a guard page.
//
// Errors: ErrMemlock, ErrSize, or what the kernel said.
func Lock(size int) (*Buffer, error) {
	if size <= 0 {
		return nil, fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	pages := (size + PageSize - 1) / PageSize * PageSize
	m, err := mapFD(-1, pages, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, err
	}
	if err := m.lock(); err != nil {
		return nil, errors.Join(err, m.unmap())
	}
	return &Buffer{size: size, m: m}, nil
}

// Bytes is the memory; nil after Destroy.
func (b *Buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		return nil
	}
	return b.m.mem[len(b.m.mem)-b.size:]
}

// Destroy zeroes and releases the memory. It may be called again.
func (b *Buffer) Destroy() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		return nil
	}
	clear(b.m.mem)
	if err := b.m.unmap(); err != nil {
		return err
	}
	b.m = nil
	return nil
}
