// Package keystore keeps the keys of the embedded KMS in one bbolt file,
// sealed under a root key, and makes and unwraps data keys with them.
//
// What it protects: whoever gets the file without the root key learns names,
// states and dates, and can neither use a key nor change a record unnoticed
// (each carries a MAC). Taking the whole file back to an older one is not
// noticed, nor is damage to the newer of bbolt's two root pages, which takes
// the store back by one change. What it does not protect: the root key file beside the store, a
// process that may read this one's memory, and copies of keys that the Go
// runtime's stacks and registers may keep for a while.
//
// The root key is in locked memory while the store is open; a key's material
// only during a call, in locked memory that is cleared. Every change is on
// disk when the call returns.
//
// A Store's methods may be called concurrently. Their errors are those below
// and kms's, wrapped with what was being done; some are *api.Error with a hint.
package keystore

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"sealdisk/pkg/secmem"
)

var (
	// ErrCorrupt is returned when the store's file or a record in it is damaged or was changed without the root key.
	ErrCorrupt = errors.New("the key store is damaged")
	// ErrLocked is returned when another KMS has the store open.
	ErrLocked = errors.New("the key store is in use by another KMS")
	// ErrWrongRootKey is returned when the root key is not this store's.
	ErrWrongRootKey = errors.New("the root key is not this key store's")
	// ErrNoRootKey is returned when the root key is not where it should be.
	ErrNoRootKey = errors.New("the root key is missing")
	// ErrRootKeyFile is returned when the kind, owner, mode or contents of a file with a root key or passphrase are not acceptable.
	ErrRootKeyFile = errors.New("the file is refused")
	// ErrFormat is returned when a newer sealdisk wrote the store or backup.
	ErrFormat = errors.New("written by a newer sealdisk")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the key store is closed")
	// ErrAlias is returned for a key name that breaks DEW's rule or is reserved.
	ErrAlias = errors.New("invalid key alias")
	// ErrAliasTaken is returned when the project has a key of that name.
	ErrAliasTaken = errors.New("the project already has a key of that name")
	// ErrDescription is returned for a description that is too long.
	ErrDescription = errors.New("invalid key description")
	// ErrKeyID is returned for what can be neither a key's id nor its alias.
	ErrKeyID = errors.New("invalid key id or name")
	// ErrParameter is returned for another argument out of its range.
	ErrParameter = errors.New("invalid parameter")
	// ErrQuota is returned when the project has MaxKeys keys.
	ErrQuota = errors.New("the project has as many keys as it may")
)

const (
	// StoreFile is the name of the store in its directory.
	StoreFile = "keys.db"
	// MaxKeys is how many keys a project may have.
	MaxKeys = 1000

	format      = 1 // of the store; readers refuse higher ones
	lockTimeout = 200 * time.Millisecond
)

// Options say which store to open and how.
type Options struct {
	Dir  string // made with mode 0700 if missing
	Root RootSource
	// MustExist refuses to make a new store.
	MustExist bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Store is an open key store.
type Store struct {
	dir  string
	now  func() time.Time
	mode RootMode
	id   string
	kdf  KDF
	made bool

	mu   sync.RWMutex // held for writing by Close only
	db   *bbolt.DB    // nil when closed
	keys *secmem.Buffer
}

// Open opens the store in o.Dir and makes it, and where the root key is a
// file the root key too, if there is none yet. It reads every record once, so
// that damage shows now.
//
// Errors: ErrLocked, ErrCorrupt, ErrWrongRootKey, ErrNoRootKey,
// ErrRootKeyFile, ErrFormat, secmem.ErrMemlock, or the system's.
func Open(o Options) (*Store, error) {
	s := &Store{dir: o.Dir, now: o.Now, mode: o.Root.Mode()}
	if s.now == nil {
		s.now = time.Now
	}
	if err := privateDir(o.Dir, o.MustExist); err != nil {
		return nil, err
	}
	var err error
	if s.db, err = openDB(filepath.Join(o.Dir, StoreFile), o.MustExist); err != nil {
		return nil, err
	}
	if err := s.unlock(o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// The parts of s.keys.
func (s *Store) root() []byte { return s.keys.Bytes()[:keySize] }
func (s *Store) kek() []byte  { return s.keys.Bytes()[keySize : 2*keySize] }
func (s *Store) mac() []byte  { return s.keys.Bytes()[2*keySize:] }

// unlock loads the root key and proves with it that the store is whole.
func (s *Store) unlock(o Options) error {
	m, err := s.readMeta()
	fresh := errors.Is(err, errNoMeta)
	if err != nil && !fresh {
		return err
	}
	if fresh && o.MustExist {
		return fmt.Errorf("%w: it was never set up", ErrCorrupt)
	}
	if s.keys, err = secmem.Lock(3 * keySize); err != nil {
		return err
	}
	kdf, err := o.Root.load(o.Dir, fresh, m.KDF, s.root())
	if err != nil {
		return hintMode(err, m, s.mode)
	}
	if fresh {
		if m, err = s.newMeta(kdf); err != nil {
			return err
		}
	}
	if err := s.derive(m.ID); err != nil {
		return err
	}
	if fresh {
		if err := s.writeMeta(m); err != nil {
			return err
		}
		s.made = true
	} else if err := s.checkRoot(m); err != nil {
		return hintMode(err, m, s.mode)
	}
	s.id, s.kdf = m.ID, m.KDF
	return s.verify()
}

// derive makes the key-encryption key and the records' MAC key from the root key.
func (s *Store) derive(storeID string) error {
	for info, dst := range map[string][]byte{"sealdisk/kms/kek/v1": s.kek(), "sealdisk/kms/record/v1": s.mac()} {
		k, err := hkdf.Key(sha256.New, s.root(), []byte(storeID), info, keySize)
		if err != nil {
			return fmt.Errorf("deriving keys: %w", err)
		}
		copy(dst, k)
		clear(k)
	}
	return nil
}

// Close forgets the keys and releases the file, after the calls under way.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	if s.keys != nil {
		err = errors.Join(err, s.keys.Destroy())
	}
	return err
}

// Created reports whether Open made the store.
func (s *Store) Created() bool { return s.made }

// Status describes an open store.
type Status struct {
	Path     string
	ID       string
	Format   int
	Root     RootMode
	Keys     int
	Agencies int
}

// Status counts what the store holds.
func (s *Store) Status() (Status, error) {
	st := Status{Path: filepath.Join(s.dir, StoreFile), ID: s.id, Format: format, Root: s.mode}
	err := s.view(func(tx *bbolt.Tx) error {
		st.Keys = tx.Bucket(bucketKeys).Stats().KeyN
		st.Agencies = tx.Bucket(bucketAgencies).Stats().KeyN
		return nil
	})
	return st, err
}

func (s *Store) view(f func(*bbolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return ErrClosed
	}
	return guarded(func() error { return s.db.View(f) })
}

func (s *Store) update(f func(*bbolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return ErrClosed
	}
	return guarded(func() error { return s.db.Update(f) })
}

// privateDir makes sure that dir is a directory that only its owner, who is
// this user or root, can enter.
func privateDir(dir string, mustExist bool) error {
	if !mustExist {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("key store: %w", err)
		}
	}
	return checkPrivate(dir)
}
