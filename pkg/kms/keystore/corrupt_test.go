package keystore

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

// filled makes a store with some keys and closes it.
func filled(t *testing.T) (dir string, keys []Key, wrapped []byte, dk []byte) {
	t.Helper()
	dir = storeDir(t)
	s := open(t, dir, RootSource{})
	for _, name := range []string{"a", "b", "c"} {
		if _, err := s.CreateKey(project, name, strings.Repeat(name, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Grant(project, 0); err != nil {
		t.Fatal(err)
	}
	dk = make([]byte, 64)
	_, wrapped, err := s.NewDataKey(project, "a", "x", dk)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err = s.Keys(project); err != nil {
		t.Fatal(err)
	}
	wantIs(t, s.Close(), nil)
	return dir, keys, wrapped, dk
}

func TestCutAndForeignFiles(t *testing.T) {
	dir, _, _, _ := filled(t)
	path := filepath.Join(dir, StoreFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	for name, b := range map[string][]byte{
		"half a page":       good[:page/2],
		"one page":          good[:page],
		"two pages":         good[:2*page],
		"three pages":       good[:3*page],
		"a page missing":    good[:len(good)-page],
		"text":              []byte(strings.Repeat("not a store\n", 1000)),
		"metas overwritten": append(make([]byte, 2*page), good[2*page:]...),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(Options{Dir: dir})
			if err == nil {
				_, err = s.Keys(project)
				wantIs(t, s.Close(), nil)
				if name == "a page missing" && err == nil {
					return // it was a free one
				}
			}
			wantIs(t, err, ErrCorrupt)
			if api.ClassOf(err) != api.ClassCorrupt {
				t.Errorf("class %s of %v", api.ClassOf(err), err)
			}
		})
	}
}

// raw changes the store's file behind its back.
func raw(t *testing.T, dir string, f func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, StoreFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantIs(t, db.Update(f), nil)
	wantIs(t, db.Close(), nil)
}

func TestEditedRecordsAreSeen(t *testing.T) {
	edit := func(change func(r *record)) func(*testing.T, string, []Key) {
		return func(t *testing.T, dir string, keys []Key) {
			raw(t, dir, func(tx *bbolt.Tx) error {
				b := tx.Bucket(bucketKeys)
				v := bytes.Clone(b.Get([]byte(keys[0].ID)))
				var r record
				if err := json.Unmarshal(v[32:], &r); err != nil {
					return err
				}
				change(&r)
				body, err := json.Marshal(r)
				if err != nil {
					return err
				}
				return b.Put([]byte(keys[0].ID), append(v[:32:32], body...))
			})
		}
	}
	for name, change := range map[string]func(*testing.T, string, []Key){
		"state":   edit(func(r *record) { r.State = kms.StateDisabled }),
		"project": edit(func(r *record) { r.Project = "other" }),
		"default": edit(func(r *record) { r.Default = true }),
		"one key under another's id": func(t *testing.T, dir string, keys []Key) {
			raw(t, dir, func(tx *bbolt.Tx) error {
				b := tx.Bucket(bucketKeys)
				return b.Put([]byte(keys[1].ID), bytes.Clone(b.Get([]byte(keys[0].ID))))
			})
		},
		"an agency for another project": func(t *testing.T, dir string, _ []Key) {
			raw(t, dir, func(tx *bbolt.Tx) error {
				b := tx.Bucket(bucketAgencies)
				return b.Put([]byte("other"), bytes.Clone(b.Get([]byte(project))))
			})
		},
		"a key as the agency of a project of that name": func(t *testing.T, dir string, keys []Key) {
			raw(t, dir, func(tx *bbolt.Tx) error {
				return tx.Bucket(bucketAgencies).Put([]byte(keys[0].ID), bytes.Clone(tx.Bucket(bucketKeys).Get([]byte(keys[0].ID))))
			})
		},
		"an alias for another key": func(t *testing.T, dir string, keys []Key) {
			raw(t, dir, func(tx *bbolt.Tx) error {
				b := tx.Bucket(bucketAliases)
				return b.Put(aliasKey(project, "a"), bytes.Clone(b.Get(aliasKey(project, "b"))))
			})
		},
		"a bucket less": func(t *testing.T, dir string, _ []Key) {
			raw(t, dir, func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketAgencies) })
		},
		"a record too short": func(t *testing.T, dir string, keys []Key) {
			raw(t, dir, func(tx *bbolt.Tx) error { return tx.Bucket(bucketKeys).Put([]byte(keys[0].ID), []byte("{}")) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, keys, _, _ := filled(t)
			change(t, dir, keys)
			_, err := Open(Options{Dir: dir})
			wantIs(t, err, ErrCorrupt)
		})
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir, _, _, _ := filled(t)
	raw(t, dir, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketMeta)
		return b.Put(keyMeta, bytes.Replace(b.Get(keyMeta), []byte(`"format":1`), []byte(`"format":2`), 1))
	})
	_, err := Open(Options{Dir: dir})
	wantIs(t, err, ErrFormat)
}
