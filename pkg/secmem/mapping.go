package secmem

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is memory between two guard pages that fault on any access.
type mapping struct {
	base  unsafe.Pointer // of the first guard page
	total uintptr        // bytes, with both guards
	mem   []byte
}

// mapFD maps size bytes of fd (or, for fd -1, of fresh anonymous memory) with
// prot between two guard pages, left out of cores and of forked children.
func mapFD(fd, size, prot int) (*mapping, error) {
	total := uintptr(size + 2*PageSize)
	base, err := unix.MmapPtr(-1, 0, nil, total, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, lockFailure(size, fmt.Errorf("reserve address space: %w", err))
	}
	m := &mapping{base: base, total: total}
	flags := unix.MAP_FIXED
	if fd < 0 {
		flags |= unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	} else {
		flags |= unix.MAP_SHARED
	}
	inner := unsafe.Add(base, PageSize)
	if _, err := unix.MmapPtr(fd, 0, inner, uintptr(size), prot, flags); err != nil {
		return nil, errors.Join(lockFailure(size, fmt.Errorf("map: %w", err)), m.unmap())
	}
	m.mem = unsafe.Slice((*byte)(inner), size)
	for _, a := range []struct {
		advice int
		name   string
	}{{unix.MADV_DONTDUMP, "MADV_DONTDUMP"}, {unix.MADV_DONTFORK, "MADV_DONTFORK"}} {
		if err := unix.Madvise(m.mem, a.advice); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", a.name, err), m.unmap())
		}
	}
	return m, nil
}

// lock locks m's memory, which faults it in.
func (m *mapping) lock() error {
	if err := unix.Mlock(m.mem); err != nil {
		return lockFailure(len(m.mem), fmt.Errorf("mlock: %w", err))
	}
	return nil
}

// unmap releases the memory and its guards. Nobody may touch mem any more.
func (m *mapping) unmap() error {
	if m.base == nil {
		return nil
	}
	if err := unix.MunmapPtr(m.base, m.total); err != nil {
		return fmt.Errorf("unmap: %w", err)
	}
	m.base, m.mem = nil, nil
	return nil
}

// lockFailure turns what the kernel answers when size more bytes can't be
// locked into a *MemlockError, and leaves other errors alone.
func lockFailure(size int, err error) error {
	// mlock says EPERM or ENOMEM, mmap of secret memory EAGAIN.
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EPERM) {
		return err
	}
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim) != nil {
		return err
	}
	need := lockedBytes() + uint64(size)
	if need <= lim.Cur { // it is memory that is short, not the limit
		return err
	}
	return &MemlockError{Need: need, Limit: lim.Cur, Err: err}
}

// lockedBytes is how much memory the process has locked already, 0 if that
// can't be read.
func lockedBytes() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmLck:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kib * 1024
		}
	}
	return 0
}
