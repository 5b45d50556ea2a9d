package keystore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
)

var (
	bucketMeta     = []byte("meta")
	bucketKeys     = []byte("keys")     // key id → record
	bucketAliases  = []byte("aliases")  // project NUL alias → record holding the key id
	bucketAgencies = []byte("agencies") // project → record
)

// checkPrivate refuses a directory that others could enter.
func checkPrivate(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	switch {
	case !st.IsDir():
		return &api.Error{Class: api.ClassUsage, Message: dir + " is not a directory"}
	case owner != uint32(os.Geteuid()) && owner != 0:
		return &api.Error{Class: api.ClassDenied, Message: fmt.Sprintf("the key store's directory %s belongs to uid %d", dir, owner),
			Hint: fmt.Sprintf("chown %d %s", os.Geteuid(), dir)}
	case st.Mode().Perm()&0o077 != 0:
		return &api.Error{Class: api.ClassDenied, Message: fmt.Sprintf("the key store's directory %s has mode %04o, so others may enter it", dir, st.Mode().Perm()),
			Hint: "chmod 0700 " + dir}
	}
	return nil
}

// openDB opens and locks the bbolt file. Its lock keeps a second KMS out.
func openDB(path string, mustExist bool) (*bbolt.DB, error) {
	st, err := os.Lstat(path)
	fresh := errors.Is(err, os.ErrNotExist)
	switch {
	case fresh && mustExist:
		return nil, fmt.Errorf("key store: %w", err)
	case err != nil && !fresh:
		return nil, fmt.Errorf("key store: %w", err)
	case err == nil && (!st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0):
		return nil, &api.Error{Class: api.ClassDenied, Message: fmt.Sprintf("%s must be a file that only its owner can read and write, it is %v", path, st.Mode()),
			Hint: "chmod 0600 " + path}
	}
	var db *bbolt.DB
	var file *os.File
	err = guarded(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
				f, err = os.OpenFile(name, flag|unix.O_NOFOLLOW, mode)
				if file == nil {
					file = f // a backup opens the file once more
				}
				return f, err
			},
		})
		return err
	})
	if err != nil && file != nil {
		// bbolt that panicked has not closed it; its mapping, too, keeps the lock.
		_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
		_ = file.Close()
	}
	var system syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, &api.Error{Class: api.ClassConflict, Err: ErrLocked, Message: fmt.Sprintf("another KMS has %s open", path),
			Hint: "stop it first; two cannot share a store"}
	case errors.As(err, &system):
		return nil, fmt.Errorf("key store %s: %w", path, err)
	case err != nil: // all else that bbolt says is about the file's contents
		return nil, corrupt(path, err)
	}
	if fresh {
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, errors.Join(fmt.Errorf("key store: %w", err), db.Close())
		}
	}
	return db, nil
}

// corrupt is the error for a store whose file is damaged.
func corrupt(path string, why error) error {
	return &api.Error{Class: api.ClassCorrupt, Err: fmt.Errorf("%w: %w", ErrCorrupt, why),
		Message: fmt.Sprintf("the key store %s is damaged: %v", path, why),
		Hint:    "keep the file, and restore a backup into an empty directory: sealdisk kms restore FILE --state-dir DIR"}
}

// guarded runs f and turns into ErrCorrupt what bbolt does on a damaged file:
// it panics, or faults on a page that its mapping does not have.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	return f()
}
