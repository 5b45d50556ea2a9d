package keystore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
	"sealdisk/pkg/secmem"
)

// RootMode says where the root key comes from.
type RootMode string

const (
	RootFile       RootMode = "file"       // a file of mode 0600, made on first start
	RootPassphrase RootMode = "passphrase" // Argon2id
	RootCredential RootMode = "credential" // a systemd credential
)

// RootSource tells Open where the root key comes from. The zero value is the
// file root.key in the store's directory.
type RootSource struct {
	// File is the path of the root key file; "" is root.key beside the store.
	File string
	// Credential is the name of a file in $CREDENTIALS_DIRECTORY, as systemd's
	// LoadCredential= makes it: 32 bytes, or what the root key file holds.
	Credential string
	// Passphrase asks for the passphrase; the caller of it destroys what it
	// returns.
	Passphrase func() (*secmem.Buffer, error)
	raw        []byte // the key itself, while a backup is restored
	// KDF is used for the passphrase of a new store; the zero value is
	// DefaultKDF. An existing store knows its own.
	KDF KDF
}

// Mode is where the key comes from.
func (s RootSource) Mode() RootMode {
	switch {
	case s.Passphrase != nil:
		return RootPassphrase
	case s.Credential != "":
		return RootCredential
	}
	return RootFile
}

// A root key file is one line: rootPrefix, the 32 bytes in hexadecimal, and a
// newline.
const (
	rootPrefix   = "sealdisk-root-key-1:"
	rootFileSize = len(rootPrefix) + 2*keySize + 1
	rootFileName = "root.key"
)

// random returns n bytes of the system's randomness.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // never fails: crypto/rand ends the program instead
	return b
}

// load writes the 32-byte root key to dst. For a store without a key
// (fresh), a file is made and the passphrase gets new parameters, which are
// returned.
func (s RootSource) load(dir string, fresh bool, kdf KDF, dst []byte) (KDF, error) {
	if s.raw != nil {
		copy(dst, s.raw)
		return kdf, nil
	}
	switch s.Mode() {
	case RootPassphrase:
		if fresh {
			kdf = s.KDF
			if kdf.Time == 0 {
				kdf = DefaultKDF
			}
			kdf = NewKDF(kdf)
		}
		return kdf, s.fromPassphrase(kdf, dst)
	case RootCredential:
		return KDF{}, fromCredential(s.Credential, dst)
	}
	path := s.File
	if path == "" {
		path = filepath.Join(dir, rootFileName)
	}
	err := readRootFile(path, privateMode, dst)
	if errors.Is(err, fs.ErrNotExist) {
		if !fresh {
			return KDF{}, &api.Error{Class: api.ClassNotFound, Err: ErrNoRootKey,
				Message: fmt.Sprintf("the root key %s is missing, and without it no key of this store can be used", path),
				Hint:    "put the file back, or restore a backup into an empty directory: sealdisk kms restore FILE --state-dir DIR"}
		}
		rand.Read(dst) //nolint:errcheck // see random
		return KDF{}, writeRootFile(path, dst)
	}
	return KDF{}, err
}

func (s RootSource) fromPassphrase(kdf KDF, dst []byte) error {
	if kdf.Time == 0 {
		return &api.Error{Class: api.ClassUsage, Err: ErrWrongRootKey, Message: "this store's root key does not come from a passphrase",
			Hint: "start the KMS with the root key file or credential it was made with"}
	}
	pass, err := s.Passphrase()
	if err != nil {
		return err
	}
	key, err := kdf.Derive(pass.Bytes())
	if err := errors.Join(err, pass.Destroy()); err != nil {
		return err
	}
	copy(dst, key.Bytes())
	return key.Destroy()
}

func fromCredential(name string, dst []byte) error {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return &api.Error{Class: api.ClassUsage, Err: ErrNoRootKey, Message: "there is no $CREDENTIALS_DIRECTORY to take the root key from",
			Hint: "start the KMS by systemd with LoadCredential=" + name + ":PATH or LoadCredentialEncrypted="}
	}
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return &api.Error{Class: api.ClassUsage, Err: ErrNoRootKey, Message: fmt.Sprintf("%q is not the name of a credential", name)}
	}
	err := readRootFile(filepath.Join(dir, name), credentialMode, dst)
	if errors.Is(err, fs.ErrNotExist) {
		return &api.Error{Class: api.ClassNotFound, Err: ErrNoRootKey, Message: fmt.Sprintf("systemd gave no credential %q", name),
			Hint: "add LoadCredential=" + name + ":PATH to the service"}
	}
	return err
}

// privateMode accepts only the owner's permissions. systemd shows a
// credential as 0440 where an ACL lets the service's user read it, so
// credentialMode allows that.
func privateMode(m fs.FileMode) bool    { return m.Perm()&0o077 == 0 }
func credentialMode(m fs.FileMode) bool { return m.Perm()&0o037 == 0 }

// openPrivate opens path for reading without following a link, and refuses
// files that others could read or replace. what names it in errors.
func openPrivate(path, what string, modeOK func(fs.FileMode) bool) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, nil, refuse(path, what, "is a symbolic link", "give the path of the file itself")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", what, err), f.Close())
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	switch {
	case !st.Mode().IsRegular():
		err = refuse(path, what, "is not a regular file", "")
	case owner != uint32(os.Geteuid()) && owner != 0:
		err = refuse(path, what, fmt.Sprintf("belongs to uid %d", owner), fmt.Sprintf("chown %d %s", os.Geteuid(), path))
	case !modeOK(st.Mode()):
		err = refuse(path, what, fmt.Sprintf("has mode %04o, so others may read it", st.Mode().Perm()), "chmod 0600 "+path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// readRootFile reads the key in path into dst.
func readRootFile(path string, modeOK func(fs.FileMode) bool, dst []byte) error {
	f, st, err := openPrivate(path, "the root key", modeOK)
	if err != nil {
		return err
	}
	defer f.Close()
	return parseRootKey(path, f, st.Size(), dst)
}

func parseRootKey(path string, r io.Reader, size int64, dst []byte) error {
	if size != int64(rootFileSize) && size != int64(rootFileSize-1) && size != keySize {
		return refuse(path, "the root key", fmt.Sprintf("holds %d bytes and so no root key", size), "restore it from a backup")
	}
	buf, err := secmem.Lock(int(size))
	if err != nil {
		return err
	}
	defer buf.Destroy()
	b := buf.Bytes()
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("root key: %w", err)
	}
	if size == keySize {
		copy(dst, b)
		return nil
	}
	digits, ok := cutPrefix(b, rootPrefix)
	if ok && len(digits) == 2*keySize+1 && digits[2*keySize] == '\n' {
		digits = digits[:2*keySize]
	}
	if ok && len(digits) == 2*keySize {
		_, err = hex.Decode(dst, digits)
		ok = err == nil
	} else {
		ok = false
	}
	if !ok {
		return refuse(path, "the root key", "holds no root key of this version", "restore it from a backup")
	}
	return nil
}

func cutPrefix(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return b, false
	}
	return b[len(prefix):], true
}

// writeRootFile makes path, durably, with the key in it. It never replaces a file.
func writeRootFile(path string, key []byte) error {
	buf, err := secmem.Lock(rootFileSize)
	if err != nil {
		return err
	}
	defer buf.Destroy()
	b := buf.Bytes()
	n := copy(b, rootPrefix)
	hex.Encode(b[n:], key)
	b[rootFileSize-1] = '\n'
	return writeNew(path, b)
}

// writeNew makes path, mode 0600, with contents b, durably: under a temporary
// name first, so that a crash leaves no half of it. It never replaces a file.
func writeNew(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// refuse is the error for a file with a secret that must not be trusted.
func refuse(path, what, why, hint string) error {
	return &api.Error{Class: api.ClassDenied, Err: ErrRootKeyFile, Message: fmt.Sprintf("%s %s %s", what, path, why), Hint: hint}
}
