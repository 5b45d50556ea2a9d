package blockdev

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
)

// FileOptions say which part of a file a File exports and how.
type FileOptions struct {
	Offset int64 // bytes, a multiple of 4096
	Size   int64 // bytes, a multiple of 4096; 0 is all from Offset to the end
	// ReadOnly opens the file for reading: changes fail with ErrReadOnly.
	ReadOnly bool
	// Discard lets Trim and WriteZeroes give storage back (punch holes).
	// Without it Trim does nothing.
	Discard bool
	// Preallocate reserves the storage of the whole range when the file is
	// opened, and keeps it: with it Trim and WriteZeroes zero without giving
	// back.
	Preallocate bool
	// OnSyncError, if not nil, is called once, with what SyncErr returns from
	// then on, when a sync failed for the first time: before the request that
	// met it returns and on its goroutine. It may wait, but must not call the
	// File.
	OnSyncError func(error)
}

// File is a Device on a sparse regular file or a block device: bytes [Offset,
// Offset+Size) of it. Nothing is memory-mapped, so that a full disk is an error
// and no signal. File adds the following to the contract of Device:
//
// Durability: a Flush is an fdatasync that begins after the Flush was called;
// concurrent ones share it. FUA on a write is RWF_DSYNC, on Trim and
// WriteZeroes an fdatasync, since RWF_DSYNC does not cover fallocate.
//
// After a sync failed every change and Flush fails with ErrSyncFailed; reads go
// on. See SyncErr.
//
// A Trim or WriteZeroes works in pieces of at most 64 MiB, each of which keeps
// the file's inode locked: call them where waiting does no harm.
type File struct {
	st   Storage
	base int64
	size int64
	opt  FileOptions

	now   nowMode
	stop  atomic.Uint32 // stopClosed | stopSyncFailed: why changes are refused
	dsync atomic.Bool   // RWF_DSYNC works as far as is known
	punch able
	zero  able

	syncs syncer
}

// OpenFile opens path, a regular file or block device (the latter exclusively,
// O_EXCL). ErrGeometry when the range is not in it, ErrNoSpace when Preallocate
// finds none, else the error of open(2) (fs.ErrNotExist, fs.ErrPermission).
func OpenFile(path string, opt FileOptions) (*File, error) {
	st, err := OpenStorage(path, opt.ReadOnly)
	if err != nil {
		return nil, err
	}
	f, err := NewFile(st, opt)
	if err != nil {
		st.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

// NewFile is OpenFile over a storage that is open already and belongs to the
// File once NewFile returned nil.
func NewFile(st Storage, opt FileOptions) (*File, error) {
	info := st.Info()
	if opt.Size == 0 && info.Size > opt.Offset {
		opt.Size = info.Size - opt.Offset
	}
	switch {
	case opt.Offset < 0 || opt.Offset%sizeUnit != 0:
		return nil, fmt.Errorf("%w: offset %d is no multiple of %d", ErrGeometry, opt.Offset, sizeUnit)
	case opt.Size < 0 || opt.Size%sizeUnit != 0:
		return nil, fmt.Errorf("%w: size %d is no multiple of %d", ErrGeometry, opt.Size, sizeUnit)
	case opt.Size == 0 || opt.Size > info.Size-opt.Offset:
		return nil, fmt.Errorf("%w: it ends at byte %d, truncated? need %d bytes from byte %d",
			ErrGeometry, info.Size, opt.Size, opt.Offset)
	}
	f := &File{st: st, base: opt.Offset, size: opt.Size, opt: opt}
	f.syncs.init(st, &f.stop, opt.OnSyncError)
	f.dsync.Store(true)
	f.now = probeNow(st, opt.Offset)
	if opt.ReadOnly {
		return f, nil
	}
	f.probeZero(info)
	if opt.Preallocate {
		if err := f.reserve(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// sizeUnit is what sizes and offsets are multiples of, in bytes.
const sizeUnit = 4096

// Reasons why changes are refused, in File.stop.
const (
	stopClosed = 1 << iota
	stopSyncFailed
)

// Size implements Device.
func (f *File) Size() int64 { return f.size }

// SyncErr implements SyncReporter.
func (f *File) SyncErr() error { return f.syncs.err() }

// change tells whether a change of [off, off+length) may go on.
func (f *File) change(off, length int64) error {
	if s := f.stop.Load(); s != 0 {
		return f.stopped(s)
	}
	if f.opt.ReadOnly {
		return ErrReadOnly
	}
	return CheckRange(off, length, f.size)
}

func (f *File) stopped(s uint32) error {
	if s&stopClosed != 0 {
		return ErrClosed
	}
	return f.syncs.err()
}

// ReadAt implements Device.
func (f *File) ReadAt(p []byte, off int64) error {
	if f.stop.Load()&stopClosed != 0 {
		return ErrClosed
	}
	if err := CheckRange(off, int64(len(p)), f.size); err != nil {
		return err
	}
	return f.read(p, f.base+off)
}

func (f *File) read(p []byte, at int64) error {
	for len(p) > 0 {
		n, err := f.st.Pread(p, at)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return ioError("read", at, len(p), err)
		case n <= 0:
			return ioError("read past the end of a truncated file", at, len(p), io.ErrUnexpectedEOF)
		default:
			p, at = p[n:], at+int64(n)
		}
	}
	return nil
}

// WriteAt implements Device. It leaves p as it is.
func (f *File) WriteAt(p []byte, off int64, fl Flags) error {
	if err := f.change(off, int64(len(p))); err != nil {
		return err
	}
	return f.write(p, f.base+off, fl)
}

func (f *File) write(p []byte, at int64, fl Flags) error {
	if fl&FUA != 0 && f.dsync.Load() {
		err := f.writeSync(p, at)
		if err != errNoDsync {
			return err
		}
		f.dsync.Store(false)
	}
	for len(p) > 0 {
		n, err := f.st.Pwrite(p, at)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return ioError("write", at, len(p), err)
		case n <= 0:
			return ioError("write", at, len(p), io.ErrShortWrite)
		default:
			p, at = p[n:], at+int64(n)
		}
	}
	if fl&FUA != 0 {
		return f.syncs.sync()
	}
	return nil
}

// errNoDsync: the storage doesn't know RWF_DSYNC.
var errNoDsync = errors.New("no RWF_DSYNC")

// writeSync writes p durably with RWF_DSYNC. Its failures are sync failures,
// except that the storage may just have been full: that is so when a sync, on
// its own descriptor, knows of no lost write.
func (f *File) writeSync(p []byte, at int64) error {
	for len(p) > 0 {
		n, err := f.syncs.writeThrough(p, at)
		switch {
		case errors.Is(err, ErrSyncFailed):
			return err
		case err == syscall.EINTR:
		case err == syscall.EOPNOTSUPP || err == syscall.ENOSYS:
			return errNoDsync
		case isNoSpace(err):
			if serr := f.syncs.sync(); serr != nil {
				return serr
			}
			return ioError("write", at, len(p), err)
		case n <= 0:
			return ioError("write", at, len(p), io.ErrShortWrite)
		default:
			p, at = p[n:], at+int64(n)
		}
	}
	return nil
}

// Flush implements Device.
func (f *File) Flush() error {
	if s := f.stop.Load(); s != 0 {
		return f.stopped(s)
	}
	if f.opt.ReadOnly {
		return nil
	}
	return f.syncs.sync()
}

// Close implements Device.
func (f *File) Close() error {
	if f.stop.Load()&stopClosed != 0 {
		return ErrClosed
	}
	err := f.Flush()
	f.stop.Or(stopClosed)
	if cerr := f.st.Close(); err == nil && cerr != nil {
		err = ioError("close", f.base, int(f.size), cerr)
	}
	return err
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// ioError is the one place that turns what a system call said into the
// package's errors.
func ioError(what string, at int64, n int, err error) error {
	class := ErrIO
	if isNoSpace(err) {
		class = ErrNoSpace
	}
	return fmt.Errorf("%s %d bytes at byte %d of the storage: %w: %w", what, n, at, class, err)
}

// syncer makes fdatasync shared, ordered and, when it fails, final.
//
// Syncs run one at a time and are numbered. A caller needs the first one that
// starts after it called: it runs that itself when none is under way, else it
// waits, and the first of those waiting to wake runs the next one for all.
type syncer struct {
	st   Storage
	stop *atomic.Uint32
	tell func(error) // of the first failure; may be nil

	through sync.RWMutex // held shared from a write-through's call to its failure on record

	mu       sync.Mutex
	turn     sync.Cond
	running  bool
	started  uint64 // number of the last sync begun
	finished uint64 // number of the last sync ended
	failed   error  // of the first that failed
}

func (s *syncer) init(st Storage, stop *atomic.Uint32, tell func(error)) {
	s.st, s.stop, s.tell, s.turn.L = st, stop, tell, &s.mu
}

func (s *syncer) sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for need := s.started + 1; s.finished < need && s.failed == nil; {
		if s.running {
			s.turn.Wait()
			continue
		}
		s.running = true
		s.started++
		s.mu.Unlock()
		err := s.st.Sync()
		for err == syscall.EINTR {
			err = s.st.Sync()
		}
		// A write-through that failed meanwhile may have taken data of others with it, which
		// this sync then found clean: it is recorded before this sync counts.
		s.through.Lock()
		s.mu.Lock()
		s.through.Unlock()
		s.running = false
		s.finished = s.started
		if err != nil {
			s.failLocked(err)
		}
		s.turn.Broadcast()
	}
	return s.failed
}

// writeThrough is one synchronous write. What it returns is what the storage said of the
// write alone; a failure to make it durable is recorded and returned as
// ErrSyncFailed.
func (s *syncer) writeThrough(p []byte, at int64) (int, error) {
	s.through.RLock()
	defer s.through.RUnlock()
	n, err := s.st.PwriteSync(p, at)
	switch {
	case err == nil, err == syscall.EINTR, err == syscall.EOPNOTSUPP, err == syscall.ENOSYS, isNoSpace(err):
		return n, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(ioError("write through", at, len(p), err))
	return n, s.failed
}

// failLocked lets go of the lock while it tells.
func (s *syncer) failLocked(err error) {
	first := s.failed == nil
	if first {
		s.failed = fmt.Errorf("%w: %w", ErrSyncFailed, err)
	}
	s.stop.Or(stopSyncFailed)
	if failed := s.failed; first && s.tell != nil {
		s.mu.Unlock()
		defer s.mu.Lock()
		s.tell(failed)
	}
}

func (s *syncer) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
