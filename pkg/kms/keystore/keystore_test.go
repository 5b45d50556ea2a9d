package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

const project = "default"

// quick are parameters of Argon2id that cost nothing.
var quick = KDF{Time: 1, Memory: 64, Threads: 1}

func open(t testing.TB, dir string, root RootSource) *Store {
	t.Helper()
	s, err := Open(Options{Dir: dir, Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// storeDir is a directory that Open accepts.
func storeDir(t testing.TB) string { return t.TempDir() + "/kms" }

func passphrase(p string) func() (*secmem.Buffer, error) {
	return func() (*secmem.Buffer, error) { return NewPassphrase([]byte(p)) }
}

func wantIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestKeysSurviveReopening(t *testing.T) {
	for name, root := range map[string]RootSource{
		"file":       {},
		"passphrase": {Passphrase: passphrase("correct horse"), KDF: quick},
	} {
		t.Run(name, func(t *testing.T) {
			dir := storeDir(t)
			s := open(t, dir, root)
			if !s.Created() {
				t.Error("a new store is not told as new")
			}
			if s.db.NoSync || s.db.NoFreelistSync || s.db.NoGrowSync {
				t.Error("bbolt does not sync each change") // a test cannot cut the power
			}
			k, err := s.CreateKey(project, "k1", "words")
			if err != nil {
				t.Fatal(err)
			}
			dk, again := make([]byte, 64), make([]byte, 64)
			_, w, err := s.NewDataKey(project, "k1", "aad", dk)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, root)
			if s.Created() {
				t.Error("an old store is told as new")
			}
			got, err := s.Key(project, "k1")
			if err != nil || got.ID != k.ID || got.Description != "words" || !got.Created.Equal(k.Created) || got.State != kms.StateEnabled {
				t.Errorf("%+v, %v, want %+v", got, err, k)
			}
			if n, err := s.Unwrap(project, k.ID, w, "aad", again); err != nil || n != 64 || !bytes.Equal(dk, again) {
				t.Errorf("unwrapped %d bytes, %v", n, err)
			}
		})
	}
}

func TestAliases(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	for _, tt := range []struct {
		name, alias string
		want        error
	}{
		{"ordinary", "disks:prod/A_b-1", nil},
		{"longest", strings.Repeat("a", 255), nil},
		{"taken", "disks:prod/A_b-1", ErrAliasTaken},
		{"empty", "", ErrAlias},
		{"too long", strings.Repeat("a", 256), ErrAlias},
		{"space", "a b", ErrAlias},
		{"newline", "a\n", ErrAlias},
		{"NUL", "a\x00b", ErrAlias},
		{"not ASCII", "schlüssel", ErrAlias},
		{"a default key's", "obs/default", ErrAlias},
		{"the default key's", api.DefaultKeyAlias, ErrAlias},
		{"like an id", "0d0466b0-e727-4d9c-b35d-f84bb474a37f", ErrAlias},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.CreateKey(project, tt.alias, "")
			wantIs(t, err, tt.want)
		})
	}
	_, err := s.CreateKey(project, "described", strings.Repeat("ä", 256))
	wantIs(t, err, ErrDescription)
	_, err = s.CreateKey(project, "described", "\xff")
	wantIs(t, err, ErrDescription)
	_, err = s.CreateKey(project, "described", strings.Repeat("ä", 255))
	wantIs(t, err, nil)
}

func TestProjectsAreApart(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	a, err := s.CreateKey("a", "k", "")
	wantIs(t, err, nil)
	b, err := s.CreateKey("b", "k", "")
	wantIs(t, err, nil)
	_, err = s.Key("b", a.ID)
	wantIs(t, err, kms.ErrNotFound)
	_, w, err := s.NewDataKey("a", a.ID, "x", make([]byte, 64))
	wantIs(t, err, nil)
	_, err = s.Unwrap("b", a.ID, w, "x", make([]byte, 64))
	wantIs(t, err, kms.ErrNotFound)
	_, err = s.Unwrap("b", b.ID, w, "x", make([]byte, 64))
	wantIs(t, err, kms.ErrBinding)
	if keys, err := s.Keys("a"); err != nil || len(keys) != 1 || keys[0].ID != a.ID {
		t.Errorf("keys of a: %v, %v", keys, err)
	}
	for _, bad := range []string{"", "../x", "a/b", "a\x00", strings.Repeat("p", 65), ".", "-x"} {
		_, err := s.CreateKey(bad, "k", "")
		wantIs(t, err, ErrParameter)
		_, _, err = s.Agency(bad)
		wantIs(t, err, ErrParameter)
	}
}

func TestStateOfAKeyDecides(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	k, err := s.CreateKey(project, "k", "")
	wantIs(t, err, nil)
	_, w, err := s.NewDataKey(project, "k", "x", make([]byte, 64))
	wantIs(t, err, nil)
	_, err = s.Enable(project, "k")
	wantIs(t, err, ErrNotDisabled)
	got, err := s.Disable(project, "k")
	if err != nil || got.State != kms.StateDisabled || got.ID != k.ID {
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = s.Disable(project, "k")
	wantIs(t, err, ErrNotEnabled)
	plain := bytes.Repeat([]byte{7}, 64)
	_, _, err = s.NewDataKey(project, "k", "x", plain)
	wantIs(t, err, kms.ErrDisabled)
	if !bytes.Equal(plain, make([]byte, 64)) {
		t.Error("a refused call left bytes in the destination")
	}
	_, err = s.Unwrap(project, "k", w, "x", make([]byte, 64))
	wantIs(t, err, kms.ErrDisabled)
	_, err = s.Enable(project, k.ID)
	wantIs(t, err, nil)
	_, err = s.Unwrap(project, "k", w, "x", make([]byte, 64))
	wantIs(t, err, nil)
}

// States that no operation leads to yet answer as the table says.
func TestForeignStates(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	k, err := s.CreateKey(project, "k", "")
	wantIs(t, err, nil)
	for state, want := range map[kms.State]error{
		kms.StatePendingDeletion: kms.ErrPendingDeletion, kms.StateFrozen: kms.ErrFrozen, kms.StatePendingImport: ErrUnusable,
	} {
		err := s.update(func(tx *bbolt.Tx) error {
			r, err := s.find(tx, project, k.ID)
			if err != nil {
				return err
			}
			r.State = state
			return s.put(tx, bucketKeys, []byte(r.ID), r)
		})
		wantIs(t, err, nil)
		_, _, err = s.NewDataKey(project, "k", "", make([]byte, 64))
		wantIs(t, err, want)
	}
}

func TestAgency(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s, err := Open(Options{Dir: storeDir(t), Now: func() time.Time { now = now.Add(time.Second); return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, granted, err := s.Agency(project); err != nil || granted {
		t.Fatalf("granted at first: %v, %v", granted, err)
	}
	first, err := s.Grant(project, 1000)
	if err != nil || first.GrantedBy != 1000 {
		t.Fatalf("%+v, %v", first, err)
	}
	k, err := s.Key(project, api.DefaultKeyAlias)
	if err != nil || !k.Default {
		t.Fatalf("default key: %+v, %v", k, err)
	}
	_, err = s.Disable(project, k.ID)
	wantIs(t, err, ErrDefaultKey)
	again, err := s.Grant(project, 0)
	if err != nil || again != first {
		t.Errorf("granting again: %+v, %v", again, err)
	}
	if _, granted, _ := s.Agency("other"); granted {
		t.Error("another project is granted too")
	}
	if revoked, err := s.Revoke(project); err != nil || !revoked {
		t.Errorf("revoke: %v, %v", revoked, err)
	}
	if revoked, err := s.Revoke(project); err != nil || revoked {
		t.Errorf("revoke twice: %v, %v", revoked, err)
	}
	if _, err := s.Grant(project, 0); err != nil {
		t.Fatal(err)
	}
	if after, err := s.Key(project, api.DefaultKeyAlias); err != nil || after.ID != k.ID {
		t.Errorf("granting again made another default key: %+v, %v", after, err)
	}
}

func TestQuota(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	err := s.update(func(tx *bbolt.Tx) error {
		for i := range MaxKeys {
			if _, err := s.insert(tx, record{Project: project, Alias: fmt.Sprintf("k%d", i)}); err != nil {
				return err
			}
		}
		return nil
	})
	wantIs(t, err, nil)
	_, err = s.CreateKey(project, "one-more", "")
	wantIs(t, err, ErrQuota)
	_, err = s.CreateKey("defaults", "elsewhere", "") // a name that begins alike
	wantIs(t, err, nil)
}

func TestOneStoreOneKMS(t *testing.T) {
	dir := storeDir(t)
	open(t, dir, RootSource{})
	_, err := Open(Options{Dir: dir})
	wantIs(t, err, ErrLocked)
	if api.ClassOf(err) != api.ClassConflict {
		t.Errorf("class %s", api.ClassOf(err))
	}
}

func TestClosedStore(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	wantIs(t, s.Close(), nil)
	_, err := s.CreateKey(project, "k", "")
	wantIs(t, err, ErrClosed)
	_, _, err = s.NewDataKey(project, "k", "", make([]byte, 64))
	wantIs(t, err, ErrClosed)
	_, err = s.Status()
	wantIs(t, err, ErrClosed)
	wantIs(t, s.Close(), nil)
}
