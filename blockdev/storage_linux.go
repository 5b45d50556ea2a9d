package blockdev

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// osStorage is the kernel's Storage.
//
// Syncs go through a descriptor of their own: the kernel reports a writeback
// error once to each descriptor, so that sync still sees one that PwriteSync
// met first. That tells a write which found no space from a writeback which
// lost data.
type osStorage struct {
	fd, sync int
	info     StorageInfo
}

// OpenStorage opens a regular file or a block device (exclusively, O_EXCL) as
// the kernel has it. Most callers want OpenFile.
func OpenStorage(path string, readOnly bool) (Storage, error) {
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	excl := 0
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFBLK:
		excl = unix.O_EXCL
	default:
		return nil, fmt.Errorf("open %s: %w: neither a regular file nor a block device", path, ErrGeometry)
	}
	fd, err := openRetry(path, flags|excl)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// O_EXCL claims a block device for one descriptor; a second one without it
	// is let in.
	sfd, err := openRetry(path, flags)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s again: %w", path, err)
	}
	s := &osStorage{fd: fd, sync: sfd}
	if err := s.examine(); err != nil {
		s.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (s *osStorage) examine() error {
	var a, b unix.Stat_t
	if err := unix.Fstat(s.fd, &a); err != nil {
		return err
	}
	if err := unix.Fstat(s.sync, &b); err != nil {
		return err
	}
	if a.Dev != b.Dev || a.Ino != b.Ino {
		return fmt.Errorf("%w: replaced while it was being opened", ErrGeometry)
	}
	s.info = StorageInfo{Size: a.Size, ZeroAlign: 1}
	if a.Mode&unix.S_IFMT == unix.S_IFBLK {
		size, err := unix.Seek(s.fd, 0, unix.SEEK_END)
		if err != nil {
			return err
		}
		block, err := unix.IoctlGetInt(s.fd, unix.BLKSSZGET)
		if err != nil {
			return fmt.Errorf("logical block size: %w", err)
		}
		s.info.Size, s.info.ZeroAlign = size, int64(block)
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(s.fd, &fs); err == nil {
		switch uint32(fs.Type) {
		case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
			s.info.Memory = true
		}
	}
	return nil
}

func (s *osStorage) Info() StorageInfo { return s.info }

func (s *osStorage) Pread(p []byte, off int64) (int, error)  { return unix.Pread(s.fd, p, off) }
func (s *osStorage) Pwrite(p []byte, off int64) (int, error) { return unix.Pwrite(s.fd, p, off) }

func (s *osStorage) PreadNow(p []byte, off int64) (int, error) {
	return s.vector(unix.SYS_PREADV2, p, off, unix.RWF_NOWAIT)
}

func (s *osStorage) PwriteSync(p []byte, off int64) (int, error) {
	return s.vector(unix.SYS_PWRITEV2, p, off, unix.RWF_DSYNC)
}

// vector calls preadv2 or pwritev2 with one buffer; unix.Preadv2 would make a
// vector on the heap.
func (s *osStorage) vector(call uintptr, p []byte, off int64, flags uintptr) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	// The offset comes as two words; a 64-bit kernel ignores the high one.
	n, _, e := unix.Syscall6(call, uintptr(s.fd), uintptr(unsafe.Pointer(&v)), 1,
		uintptr(off), uintptr(uint64(off)>>32), flags)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func (s *osStorage) Punch(off, length int64) error {
	return unix.Fallocate(s.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
}

func (s *osStorage) ZeroRange(off, length int64) error {
	return unix.Fallocate(s.fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, length)
}

func (s *osStorage) Reserve(off, length int64) error {
	return unix.Fallocate(s.fd, unix.FALLOC_FL_KEEP_SIZE, off, length)
}

func (s *osStorage) Sync() error { return unix.Fdatasync(s.sync) }

func (s *osStorage) SeekData(off int64) (int64, error) { return unix.Seek(s.fd, off, unix.SEEK_DATA) }
func (s *osStorage) SeekHole(off int64) (int64, error) { return unix.Seek(s.fd, off, unix.SEEK_HOLE) }

func (s *osStorage) WillNeed(off, length int64) error {
	return unix.Fadvise(s.fd, off, length, unix.FADV_WILLNEED)
}

func (s *osStorage) Close() error {
	err := unix.Close(s.fd)
	if e := unix.Close(s.sync); err == nil {
		err = e
	}
	return err
}
