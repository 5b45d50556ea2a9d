package keystore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
	"sealdisk/pkg/secmem"
)

// Inside a backup are: the length of what follows in 4 bytes, a BackupInfo as
// JSON, the 32 bytes of the root key, and the store's file as one transaction
// saw it.

// BackupInfo describes a backup. It is encrypted with the rest.
type BackupInfo struct {
	Format  int       `json:"format"` // of the store
	StoreID string    `json:"store_id"`
	Created time.Time `json:"created"`
	Root    RootMode  `json:"root_key"`
	Size    int64     `json:"size"` // of the store's file, bytes
}

const maxBackupInfo = 4 << 10 // bytes

// Backup writes an encrypted backup of the store and its root key to w, as of
// one moment, while the store goes on working. key is what kdf made of the
// backup's passphrase.
func (s *Store) Backup(w io.Writer, kdf KDF, key []byte) (err error) {
	// The store's file is small and sealed. A copy of it means that a slow w
	// holds up neither writers nor Close.
	var db bytes.Buffer
	root, err := secmem.Lock(keySize)
	if err != nil {
		return err
	}
	defer root.Destroy()
	err = s.view(func(tx *bbolt.Tx) error {
		copy(root.Bytes(), s.root())
		_, err := tx.WriteTo(&db)
		return err
	})
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	info, err := json.Marshal(BackupInfo{Format: format, StoreID: s.id, Created: s.now().UTC(), Root: s.mode, Size: int64(db.Len())})
	if err != nil {
		return err
	}
	out, err := newSealer(w, kdf, key)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	for _, part := range [][]byte{binary.BigEndian.AppendUint32(nil, uint32(len(info))), info, root.Bytes(), db.Bytes()} {
		if _, err := out.Write(part); err != nil {
			return errors.Join(fmt.Errorf("backup: %w", err), out.abandon())
		}
	}
	if err := out.finish(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// readBackup decrypts a whole backup: the root key to root, the store's file to db.
func readBackup(r io.Reader, keyOf func(KDF) (*secmem.Buffer, error), root []byte, db io.Writer) (info BackupInfo, err error) {
	o, err := newOpener(r, keyOf)
	if err != nil {
		return BackupInfo{}, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	var n [4]byte
	if _, err := io.ReadFull(o, n[:]); err != nil {
		return BackupInfo{}, shortBackup(err)
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > maxBackupInfo {
		return BackupInfo{}, damagedBackup("its description is too long")
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(o, b); err != nil {
		return BackupInfo{}, shortBackup(err)
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return BackupInfo{}, damagedBackup("its description is not understood")
	}
	if info.Format != format {
		return BackupInfo{}, &api.Error{Class: api.ClassConflict, Err: ErrFormat, Message: fmt.Sprintf("the backup holds a store of format %d, this sealdisk knows %d", info.Format, format)}
	}
	if _, err := io.ReadFull(o, root); err != nil {
		return BackupInfo{}, shortBackup(err)
	}
	copied, err := io.Copy(db, o)
	if err == nil && copied != info.Size {
		err = damagedBackup(fmt.Sprintf("it holds %d bytes of the store, not %d", copied, info.Size))
	}
	return info, err
}

func shortBackup(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damagedBackup("it ends too early")
	}
	return err
}

// VerifyBackup reads a backup to its end, so that its owner knows it can be
// read with that passphrase. keyOf makes the key, which is destroyed.
//
// Errors: ErrPassphrase, ErrBackup, ErrFormat, or those of r and keyOf.
func VerifyBackup(r io.Reader, keyOf func(KDF) (*secmem.Buffer, error)) (BackupInfo, error) {
	root, err := secmem.Lock(keySize)
	if err != nil {
		return BackupInfo{}, err
	}
	defer root.Destroy()
	return readBackup(r, keyOf, root.Bytes(), io.Discard)
}

// Restore makes the key store dir of a backup. dir must be missing or empty
// and appears whole or not at all; its parent must exist. Where the store's
// root key comes from a passphrase it goes on doing so; else it is written to
// the root key file.
//
// Errors: as VerifyBackup, and an *api.Error of class conflict when dir is in use.
func Restore(r io.Reader, keyOf func(KDF) (*secmem.Buffer, error), dir string) (info BackupInfo, err error) {
	if err := unused(dir); err != nil {
		return BackupInfo{}, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".kms-restore-*")
	if err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	root, err := secmem.Lock(keySize)
	if err != nil {
		return BackupInfo{}, err
	}
	defer root.Destroy()
	db, err := os.OpenFile(filepath.Join(tmp, StoreFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	info, err = readBackup(r, keyOf, root.Bytes(), db)
	if err = errors.Join(err, db.Sync(), db.Close()); err != nil {
		return BackupInfo{}, err
	}
	store, err := Open(Options{Dir: tmp, MustExist: true, Root: RootSource{raw: root.Bytes()}})
	if err != nil {
		return BackupInfo{}, fmt.Errorf("the restored store does not open: %w", err)
	}
	if err := store.Close(); err != nil {
		return BackupInfo{}, err
	}
	if info.Root != RootPassphrase {
		if err := writeRootFile(filepath.Join(tmp, rootFileName), root.Bytes()); err != nil {
			return BackupInfo{}, err
		}
	}
	if err := moveInto(tmp, dir); err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	return info, nil
}

// unused makes sure that there is nothing in dir that a restore would replace.
func unused(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if len(entries) > 0 {
		return &api.Error{Class: api.ClassConflict, Message: fmt.Sprintf("%s is not empty (%s): a restore never replaces a key store", dir, entries[0].Name()),
			Hint: "stop the daemon and move the directory away, or give another --state-dir"}
	}
	return nil
}

// moveInto gives the directory tmp the name dir, durably. rename(2) replaces
// an empty directory and no other; os.Rename would refuse that one too.
func moveInto(tmp, dir string) error {
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := unix.Rename(tmp, dir); err != nil {
		return fmt.Errorf("renaming %s to %s: %w", tmp, dir, err)
	}
	return syncDir(filepath.Dir(dir))
}
