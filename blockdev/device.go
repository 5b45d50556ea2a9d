// Package blockdev defines the contract of a block device as sealdisk's data
// path sees it, and the devices that fulfil it: a file or block device below,
// an encrypting device above.
//
// The package knows nothing of NBD, of a KMS or of how keys are kept.
//
// The unit of atomicity and of holes is the granule of 512 bytes. A device
// accepts any offset and length in bytes; what is not aligned to a granule
// costs a read-modify-write of the granule at the edge.
package blockdev

import "errors"

// GranuleSize is the unit, in bytes, of locking, of holes and of encryption.
const GranuleSize = 512

// Flags modify one request. Which flag a method honours is said there.
type Flags uint8

const (
	// FUA: the request's own data is durable when the call returns nil.
	FUA Flags = 1 << iota
	// NoHole: WriteZeroes must leave the range allocated.
	NoHole
	// FastZero: WriteZeroes must be faster than writing, else fail with
	// ErrNotSupported having changed nothing.
	FastZero
)

// Errors that devices return, wrapped with what was being done.
var (
	// ErrOutOfRange: the request reaches outside [0, Size), or is negative.
	ErrOutOfRange = errors.New("range outside the device")
	// ErrReadOnly: a change was asked of a read-only device.
	ErrReadOnly = errors.New("device is read-only")
	// ErrNoSpace: the storage below is full (ENOSPC, EDQUOT). The request had
	// no or a partial effect; other requests go on working.
	ErrNoSpace = errors.New("no space left on the storage below")
	// ErrIO: the storage below failed, or a ciphertext can't be stored.
	ErrIO = errors.New("input/output error")
	// ErrSyncFailed: a sync failed earlier. It is sticky: every later write and
	// flush returns it until the device is opened anew, since the kernel marks
	// the lost pages clean (Rebello et al., ATC'20).
	ErrSyncFailed = errors.New("an earlier sync failed, data may be lost")
	// ErrNotSupported: FastZero can't be honoured.
	ErrNotSupported = errors.New("not supported by the storage below")
	// ErrWouldBlock: ReadNow can't be served without waiting for storage.
	ErrWouldBlock = errors.New("would block")
	// ErrGeometry: a device can't be opened: its storage ends too early, the
	// size or offset is no multiple of 4096, or it is no file and no block
	// device.
	ErrGeometry = errors.New("storage does not fit the device")
	// ErrClosed: the device was closed.
	ErrClosed = errors.New("device is closed")
)

// Device is a random-access block device.
//
// Concurrency: all methods may be called concurrently, but the caller must
// exclude calls that overlap in a granule when one of them changes it: with a
// RangeLock (Granules gives what to lock), or by wrapping the device with
// Serialize. Flush, Extents, Size need no exclusion.
//
// Buffers: the device does not keep p. ReadAt fills all of p or returns an
// error, after which p's contents are undefined. WriteAt may overwrite p (it
// encrypts in place): after the call p's contents are undefined.
//
// Durability: what a call that changed data wrote is visible to every later
// read at once, and durable after a later Flush returned nil, or on return when
// FUA was given. A Flush covers every call that returned before the Flush
// began.
//
// Atomicity: after a crash each granule holds what it held at the last Flush,
// or what some later write put there, never a mix.
type Device interface {
	// Size is the device's size in bytes, a multiple of 4096, fixed while open.
	Size() int64
	// ReadAt fills p from byte off. Holes read as zeros.
	ReadAt(p []byte, off int64) error
	// WriteAt stores p at byte off. Honours FUA. Consumes p.
	WriteAt(p []byte, off int64, f Flags) error
	// Trim declares [off, off+length) unused. Its whole granules read as zeros
	// afterwards where the storage can punch holes, and are unchanged where it
	// can't; parts of granules at the edges are unchanged. Honours FUA.
	Trim(off, length int64, f Flags) error
	// WriteZeroes makes [off, off+length) read as zeros. Honours FUA, NoHole
	// and FastZero. A call of length 0 with FastZero tells whether FastZero is
	// honoured.
	WriteZeroes(off, length int64, f Flags) error
	// Flush makes durable every change that returned before Flush began.
	// Concurrent calls may share one sync.
	Flush() error
	// Extents appends to dst the allocation of [off, off+length) in order,
	// covering it from off on without gaps, at most max extents (the rest is
	// left out; at least one extent is given unless length is 0). Only a hint
	// for speed: an extent said to be data may still be zeros.
	Extents(dst []Extent, off, length int64, max int) ([]Extent, error)
	// Cache asks the storage to read [off, off+length) ahead. A hint.
	Cache(off, length int64) error
	// Close syncs and releases the device. It reports a failed sync. The caller
	// has let all other calls return.
	Close() error
}

// NowReader is implemented by a device that can tell whether a read is served
// from memory.
type NowReader interface {
	// ReadNow is ReadAt where the data is at hand, and returns ErrWouldBlock,
	// with p undefined, where it is not.
	ReadNow(p []byte, off int64) error
}

// SyncReporter is implemented by a device that remembers a failed sync.
type SyncReporter interface {
	// SyncErr returns nil, or the error of the first sync that failed, which
	// wraps ErrSyncFailed. May be called at any time, after Close too.
	SyncErr() error
}

// Extent is a run of bytes of one allocation state.
type Extent struct {
	Off, Len int64 // bytes
	// Hole: no storage is allocated. Zero: reads as zeros.
	Hole, Zero bool
}

// CheckRange returns ErrOutOfRange unless [off, off+length) lies within size.
func CheckRange(off, length, size int64) error {
	if off < 0 || length < 0 || off > size || length > size-off {
		return ErrOutOfRange
	}
	return nil
}
