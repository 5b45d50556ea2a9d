package keystore

import (
	"crypto/rand"
	"fmt"

	"go.etcd.io/bbolt"

	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// copyRandom fills b with the system's randomness.
func copyRandom(b []byte) {
	rand.Read(b) //nolint:errcheck // see random
}

// usable finds a key that data keys may be made and unwrapped with.
func (s *Store) usable(tx *bbolt.Tx, project, ref string) (*record, error) {
	r, err := s.find(tx, project, ref)
	if err != nil {
		return nil, err
	}
	if err := Allowed(OpUse, r.State, r.Default); err != nil {
		return nil, fmt.Errorf("key %s: %w", r.ID, err)
	}
	return r, nil
}

// NewDataKey fills plain, which the caller locks and clears, with a fresh data
// key and returns it wrapped under the current version of the key, bound to
// aad. Nothing is stored.
//
// Errors: kms.ErrNotFound, kms.ErrDisabled, kms.ErrPendingDeletion,
// kms.ErrFrozen, ErrUnusable, ErrKeyID, ErrParameter.
func (s *Store) NewDataKey(project, ref, aad string, plain []byte) (Key, []byte, error) {
	if err := checkAAD(aad); err != nil {
		return Key{}, nil, err
	}
	if len(plain) < 1 || len(plain) > MaxDataKey {
		return Key{}, nil, fmt.Errorf("%w: data key of %d bytes", ErrParameter, len(plain))
	}
	var k Key
	var out []byte
	err := s.view(func(tx *bbolt.Tx) error {
		r, err := s.usable(tx, project, ref)
		if err != nil {
			return err
		}
		buf, err := secmem.Lock(keySize)
		if err != nil {
			return err
		}
		defer buf.Destroy()
		if err := s.openMaterial(r, r.Current, buf.Bytes()); err != nil {
			return err
		}
		copyRandom(plain)
		k = r.key()
		out, err = sealDataKey(buf.Bytes(), r.ID, r.Current, plain, aad)
		return err
	})
	if err != nil {
		clear(plain)
		return Key{}, nil, err
	}
	return k, out, nil
}

// Unwrap writes a data key into dst, which the caller locks and clears, and
// returns its length. dst must have room for it.
//
// Errors: kms.ErrBinding when it was wrapped with another key or additional
// data or is damaged; else as NewDataKey.
func (s *Store) Unwrap(project, ref string, ciphertext []byte, aad string, dst []byte) (int, error) {
	if err := checkAAD(aad); err != nil {
		return 0, err
	}
	n := 0
	err := s.view(func(tx *bbolt.Tx) error {
		r, err := s.usable(tx, project, ref)
		if err != nil {
			return err
		}
		w, err := parseWrapped(ciphertext)
		if err != nil {
			return err
		}
		if w.keyID != r.ID {
			return fmt.Errorf("%w: wrapped with another key", kms.ErrBinding)
		}
		if w.size() > len(dst) {
			return fmt.Errorf("%w: it holds %d bytes, expected were at most %d", kms.ErrBinding, w.size(), len(dst))
		}
		buf, err := secmem.Lock(keySize)
		if err != nil {
			return err
		}
		defer buf.Destroy()
		if err := s.openMaterial(r, w.version, buf.Bytes()); err != nil {
			return err
		}
		if _, err := openX(dst[:0:w.size()], buf.Bytes(), w.nonce, w.sealed, wrapAAD(w.header, aad)); err != nil {
			return fmt.Errorf("%w: it %v for this key and these additional data", kms.ErrBinding, err)
		}
		n = w.size()
		return nil
	})
	return n, err
}
