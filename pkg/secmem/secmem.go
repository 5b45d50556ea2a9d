// Package secmem keeps key material in memory that is locked, left out of
// cores and, where the kernel can, invisible even to the kernel's own readers
// of process memory.
//
// Which type to use:
//
//   - Region: pages that another process fills and this one only reads. The
//     engine creates one for each disk, hands its descriptor to the fetch-key
//     child and reads the key schedules from Bytes.
//   - Writable: the child's side of a Region.
//   - Buffer: locked scratch memory of one process.
//
// In ModeSecret the pages come from memfd_secret(2): they are missing from the
// kernel's direct map, so /proc/PID/mem, process_vm_readv, cores, swap and
// hibernation do not get at them, and the kernel zeroes them when they are
// freed. In ModeLocked they are an ordinary memfd, locked, left out of cores
// and zeroed through the descriptor; root can read them.
//
// Neither protects against code injected into the process, against
// pidfd_getfd while the descriptor is still open, against the kernel itself
// or a snapshot of the machine.
//
// All types print as their size and mode, never as their contents. Methods
// may be called concurrently, except that nobody may use the slice that Bytes
// returned once Destroy or Close was called: the memory is unmapped.
package secmem

import (
	"errors"
	"fmt"
	"os"
)

// Mode is how a Region's pages are protected.
type Mode string

const (
	// ModeSecret: memfd_secret, on by default since Linux 6.5.
	ModeSecret Mode = "memfd_secret"
	// ModeLocked: memfd, mlock and MADV_DONTDUMP.
	ModeLocked Mode = "mlock"
)

var (
	// ErrMemlock is returned when the process may not lock as much memory as
	// is needed. The error is a *MemlockError, which names the limit needed.
	ErrMemlock = errors.New("not enough lockable memory")
	// ErrSecretUnavailable is returned when Options.RequireSecret is set and
	// the kernel gives no memfd_secret.
	ErrSecretUnavailable = errors.New("the kernel gives no secret memory (memfd_secret); it is on since Linux 6.5, before that the kernel needs secretmem.enable=1")
	// ErrSize is returned for a size that is not a positive multiple of the
	// page size, or that the descriptor does not have.
	ErrSize = errors.New("size of key memory")
	// ErrDestroyed is returned when a Region is used after Destroy.
	ErrDestroyed = errors.New("key memory is destroyed")
)

// PageSize is the unit, in bytes, of a Region's size.
var PageSize = os.Getpagesize()

// Options modify Create.
type Options struct {
	// RequireSecret refuses anything less than ModeSecret.
	RequireSecret bool
	// ForceLocked takes ModeLocked though the kernel could do better. It is
	// for tests and for hosts that must be able to hibernate.
	ForceLocked bool
}

// MemlockError says how much memory the process would have to be allowed to
// lock. errors.Is(err, ErrMemlock) holds.
type MemlockError struct {
	Need  uint64 // RLIMIT_MEMLOCK that would do, bytes; 0 is "unlimited"
	Limit uint64 // RLIMIT_MEMLOCK in force, bytes
	Err   error  // what the kernel said
}

func (e *MemlockError) Error() string {
	need := "unlimited"
	if e.Need != 0 {
		need = fmt.Sprintf("at least %d bytes", e.Need)
	}
	return fmt.Sprintf("%v: RLIMIT_MEMLOCK is %d bytes and must be %s: %v", ErrMemlock, e.Limit, need, e.Err)
}

// Hint says what an administrator can do about it.
func (e *MemlockError) Hint() string {
	if e.Need == 0 {
		return "raise it with `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the service"
	}
	kib := (e.Need + 1023) / 1024
	return fmt.Sprintf("raise it with `ulimit -l %d` (KiB), or LimitMEMLOCK=%dK in the service", kib, kib)
}

// Is makes errors.Is(err, ErrMemlock) true.
func (e *MemlockError) Is(target error) bool { return target == ErrMemlock }

// Unwrap returns what the kernel said.
func (e *MemlockError) Unwrap() error { return e.Err }
