package secmem

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	// nosecret: a process for which memfd_secret is not there.
	roles["nosecret"] = func() error {
		runtime.LockOSThread()
		if err := refuseMemfdSecret(); err != nil {
			return err
		}
		if _, err := Create(PageSize, Options{RequireSecret: true}); !errors.Is(err, ErrSecretUnavailable) {
			return fmt.Errorf("RequireSecret: %v", err)
		}
		r, err := Create(PageSize, Options{})
		if err != nil || r.Mode() != ModeLocked {
			return fmt.Errorf("fallback: %v, %v", r, err)
		}
		if mode, err := Probe(); err != nil || mode != ModeLocked {
			return fmt.Errorf("probe: %v, %v", mode, err)
		}
		return r.Destroy()
	}
}

// refuseMemfdSecret makes the calling thread get ENOSYS from memfd_secret, as
// from a kernel before 5.14.
func refuseMemfdSecret() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: unix.SYS_MEMFD_SECRET},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

func TestKernelWithoutSecretMemory(t *testing.T) { run(t, child("nosecret")) }

// A host that wants less and demands more gets an error, not less.
func TestRequireSecretWins(t *testing.T) {
	if r, err := Create(PageSize, Options{RequireSecret: true, ForceLocked: true}); !errors.Is(err, ErrSecretUnavailable) {
		t.Errorf("%v, %v", r, err)
	}
}
