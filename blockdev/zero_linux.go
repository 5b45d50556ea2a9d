package blockdev

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ZeroBlockDevice makes bytes [off, off+size) of the block device at path read
// as zeros, durably, by BLKZEROOUT: a new disk's ciphertext, all holes. off and
// size are multiples of the device's logical block. It opens the device
// exclusively (O_EXCL: EBUSY while mounted or in use). progress, if not nil, is
// called with the bytes done.
func ZeroBlockDevice(path string, off, size int64, progress func(done, total int64)) error {
	st, err := OpenStorage(path, false)
	if err != nil {
		return err
	}
	defer st.Close()
	s := st.(*osStorage)
	if s.info.ZeroAlign == 1 {
		return fmt.Errorf("zero %s: %w: not a block device", path, ErrGeometry)
	}
	if err := CheckRange(off, size, s.info.Size); err != nil {
		return fmt.Errorf("zero %s: %w", path, err)
	}
	for done := int64(0); done < size; {
		r := [2]uint64{uint64(off + done), uint64(min(size-done, maxPunch))}
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s.fd), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r)))
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return fmt.Errorf("zero %s: %w", path, ioError("BLKZEROOUT", off+done, int(r[1]), e))
		}
		done += int64(r[1])
		if progress != nil {
			progress(done, size)
		}
	}
	if err := st.Sync(); err != nil {
		return fmt.Errorf("zero %s: %w: %w", path, ErrIO, err)
	}
	return nil
}
