//go:build !race

// Not under the race detector: its checkptr ends the program where bbolt
// reads a damaged page, before anything can be recovered.

package keystore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Whatever byte of the store is damaged, it is told, or was not needed. It
// never ends the program and never gives another answer.
func TestFlippedBytes(t *testing.T) {
	dir, keys, w, dk := filled(t)
	path := filepath.Join(dir, StoreFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	told, harmless := 0, 0
	for i := 0; i < len(good); i += 11 {
		if good[i] == 0 && i%5 != 0 {
			continue // most of the file is empty
		}
		bad := bytes.Clone(good)
		bad[i] ^= 0xff
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if works(t, i, dir, keys, w, dk) {
			harmless++
		} else {
			told++
		}
	}
	t.Logf("%d told, %d harmless", told, harmless)
	if told < 50 {
		t.Errorf("only %d damages were noticed", told)
	}
}

// works reports whether the store in dir can be used; it fails the test where
// it gives another answer than the undamaged one.
func works(t *testing.T, at int, dir string, keys []Key, w, dk []byte) bool {
	t.Helper()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrWrongRootKey) && !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d: %v", at, err)
		}
		return false
	}
	defer s.Close()
	got, err := s.Keys(project)
	if err == nil && at < 2*os.Getpagesize() && len(got) == len(keys)-1 {
		return true // one of bbolt's two roots is gone: the store is one change back
	}
	if err != nil || !slices.EqualFunc(got, keys, func(a, b Key) bool { return a.ID == b.ID && a.State == b.State && a.Alias == b.Alias }) {
		if err == nil {
			t.Errorf("byte %d: other keys without an error: %d", at, len(got))
		}
		return false
	}
	again := make([]byte, 64)
	_, err = s.Unwrap(project, "a", w, "x", again)
	if err == nil && !bytes.Equal(dk, again) {
		t.Errorf("byte %d: another data key without an error", at)
	}
	return err == nil
}
