package keystore

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

// Every value outside the meta bucket is an HMAC-SHA256 (32 bytes) followed
// by JSON. The MAC covers the bucket's name, the key and the JSON, so that a
// record can be neither edited nor moved without the root key.

var (
	errNoMeta = errors.New("the store has no meta record")
	keyMeta   = []byte("store")
)

// checkText is what the check value seals: opening it proves the root key.
const checkText = "sealdisk root key check"

// meta describes the store. It is readable without the root key.
type meta struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"` // salt of the derived keys
	Created time.Time `json:"created"`
	Root    RootMode  `json:"root_key"`
	KDF     KDF       `json:"kdf"`   // zero unless Root is RootPassphrase
	Check   []byte    `json:"check"` // nonce and checkText sealed under the KEK
}

// material is one version of a key, sealed under the KEK.
type material struct {
	Version uint32    `json:"version"`
	Created time.Time `json:"created"`
	Sealed  []byte    `json:"sealed"` // nonce, 32 bytes encrypted, tag
}

// record is a key as it is stored.
type record struct {
	ID          string     `json:"id"`
	Project     string     `json:"project"`
	Alias       string     `json:"alias"`
	Description string     `json:"description,omitempty"`
	State       kms.State  `json:"state"`
	Default     bool       `json:"default,omitempty"`
	Created     time.Time  `json:"created"`
	Current     uint32     `json:"current"`
	Materials   []material `json:"materials"`
}

// agencyRecord is a project's agency as it is stored.
type agencyRecord struct {
	GrantedAt time.Time `json:"granted_at"`
	GrantedBy uint32    `json:"granted_by"` // uid
}

func (s *Store) recordMAC(bucket, key, body []byte) []byte {
	h := hmac.New(sha256.New, s.mac())
	for _, part := range [][]byte{bucket, key} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	h.Write(body)
	return h.Sum(nil)
}

// put stores v under key.
func (s *Store) put(tx *bbolt.Tx, bucket, key []byte, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, append(s.recordMAC(bucket, key, body), body...))
}

// get reads what put stored; found is false if there is none.
//
// Errors: ErrCorrupt.
func (s *Store) get(tx *bbolt.Tx, bucket, key []byte, v any) (found bool, err error) {
	b := tx.Bucket(bucket).Get(key)
	if b == nil {
		return false, nil
	}
	return true, s.decode(bucket, key, b, v)
}

func (s *Store) decode(bucket, key, b []byte, v any) error {
	if len(b) < sha256.Size || !hmac.Equal(b[:sha256.Size], s.recordMAC(bucket, key, b[sha256.Size:])) {
		return fmt.Errorf("%w: record %s/%q does not authenticate", ErrCorrupt, bucket, key)
	}
	if err := json.Unmarshal(b[sha256.Size:], v); err != nil {
		return fmt.Errorf("%w: record %s/%q: %v", ErrCorrupt, bucket, key, err)
	}
	return nil
}

func (s *Store) readMeta() (m meta, err error) {
	err = guarded(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketMeta)
			if b == nil {
				return errNoMeta
			}
			v := b.Get(keyMeta)
			if v == nil {
				return fmt.Errorf("%w: its meta record is missing", ErrCorrupt)
			}
			if err := json.Unmarshal(v, &m); err != nil {
				return fmt.Errorf("%w: its meta record: %v", ErrCorrupt, err)
			}
			return nil
		})
	})
	path := filepath.Join(s.dir, StoreFile)
	if errors.Is(err, ErrCorrupt) {
		return meta{}, corrupt(path, err)
	}
	if err == nil && m.Format != format {
		return meta{}, &api.Error{Class: api.ClassConflict, Err: ErrFormat, Message: fmt.Sprintf("%s has format %d, this sealdisk knows %d", path, m.Format, format),
			Hint: "use the sealdisk that wrote it, or a newer one"}
	}
	return m, err
}

func (s *Store) newMeta(kdf KDF) (meta, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return meta{}, err
	}
	return meta{Format: format, ID: id.String(), Created: s.now().UTC(), Root: s.mode, KDF: kdf}, nil
}

// writeMeta sets the store up. The derived keys are in place.
func (s *Store) writeMeta(m meta) error {
	nonce := random(nonceSize)
	var err error
	if m.Check, err = sealX(nonce, s.kek(), nonce, []byte(checkText), []byte(m.ID)); err != nil {
		return err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketKeys, bucketAliases, bucketAgencies} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyMeta, body)
	})
}

// checkRoot proves that the root key is the one the store was made with.
func (s *Store) checkRoot(m meta) error {
	ok := len(m.Check) > nonceSize
	if ok {
		text, err := openX(nil, s.kek(), m.Check[:nonceSize], m.Check[nonceSize:], []byte(m.ID))
		ok = err == nil && string(text) == checkText
	}
	if ok {
		return nil
	}
	what := "the root key is not the one this key store was made with"
	hint := "give the right root key, or restore a backup into an empty directory"
	if s.mode == RootPassphrase {
		what, hint = "wrong passphrase: it does not open this key store", ""
	}
	return &api.Error{Class: api.ClassCorrupt, Err: ErrWrongRootKey, Message: what, Hint: hint}
}

// hintMode adds to an error about the root key that the store was made with
// another kind of it.
func hintMode(err error, m meta, mode RootMode) error {
	var e *api.Error
	if m.Root == "" || m.Root == mode || !errors.As(err, &e) {
		return err
	}
	c := *e
	c.Hint = map[RootMode]string{
		RootFile:       "this store was made with a root key file",
		RootPassphrase: "this store was made with a passphrase: start the KMS with --passphrase-file, --passphrase-fd or --ask-passphrase",
		RootCredential: "this store was made with a systemd credential: start the KMS with --root-key-credential",
	}[m.Root]
	return &c
}

// verify reads every record once.
func (s *Store) verify() error {
	err := s.view(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketKeys, bucketAliases, bucketAgencies} {
			b := tx.Bucket(name)
			if b == nil {
				return fmt.Errorf("%w: bucket %s is missing", ErrCorrupt, name)
			}
			err := b.ForEach(func(k, v []byte) error {
				var ignored json.RawMessage
				return s.decode(name, k, v, &ignored)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrCorrupt) {
		return corrupt(filepath.Join(s.dir, StoreFile), err)
	}
	return err
}
