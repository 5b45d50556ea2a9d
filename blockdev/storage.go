package blockdev

// Storage is what a File sits on: the system calls of one open file or block
// device, each as the kernel answers it (short counts, EINTR and all). The
// retrying, the durability and the error mapping are File's, so that a test can
// put a storage that fails, waits or loses power under the real logic.
//
// All methods may be called concurrently. No method keeps or changes p, Pread
// and PreadNow apart. Errors are syscall.Errno or wrap one. Offsets are those
// of the file, in bytes.
type Storage interface {
	// Info tells what is fixed while the storage is open.
	Info() StorageInfo
	// Pread is pread(2): n may be short, 0 at the end.
	Pread(p []byte, off int64) (n int, err error)
	// PreadNow is preadv2(2) with RWF_NOWAIT: EAGAIN where it would wait,
	// EOPNOTSUPP where the file can't tell.
	PreadNow(p []byte, off int64) (n int, err error)
	// Pwrite is pwrite(2): n may be short. Nothing is durable on return.
	Pwrite(p []byte, off int64) (n int, err error)
	// PwriteSync is pwritev2(2) with RWF_DSYNC: the n bytes are durable on
	// return. EOPNOTSUPP where the kernel doesn't know the flag.
	PwriteSync(p []byte, off int64) (n int, err error)
	// Punch is fallocate(2) with PUNCH_HOLE and KEEP_SIZE: the range reads as
	// zeros and holds no storage. Not durable on return.
	Punch(off, length int64) error
	// ZeroRange is fallocate(2) with ZERO_RANGE and KEEP_SIZE: the range reads
	// as zeros and stays allocated. Not durable on return.
	ZeroRange(off, length int64) error
	// Reserve is fallocate(2) with KEEP_SIZE: the range is allocated, its
	// contents unchanged.
	Reserve(off, length int64) error
	// Sync is fdatasync(2): when it returns nil, every Pwrite, Punch and
	// ZeroRange that returned before it began is durable. Each writeback error
	// since the opening is reported at least once, even when PwriteSync has
	// reported it.
	Sync() error
	// SeekData and SeekHole are lseek(2) with SEEK_DATA and SEEK_HOLE: the
	// first byte of data or of a hole at or after off; ENXIO where there is
	// none.
	SeekData(off int64) (int64, error)
	SeekHole(off int64) (int64, error)
	// WillNeed is posix_fadvise(2) with POSIX_FADV_WILLNEED.
	WillNeed(off, length int64) error
	// Close releases the storage. No other call is under way.
	Close() error
}

// StorageInfo describes a Storage.
type StorageInfo struct {
	Size int64 // bytes
	// ZeroAlign: Punch and ZeroRange take multiples of so many bytes: 1 on a
	// file, whose system zeroes partial blocks, the logical block size on a
	// block device.
	ZeroAlign int64
	// Memory: the storage is memory (tmpfs), reads never wait for a disk.
	Memory bool
}
