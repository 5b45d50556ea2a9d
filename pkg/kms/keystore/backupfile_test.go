package keystore

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// The chunks of a backup, apart from what is in them: only all of them, in
// their order, open.
func TestChunks(t *testing.T) {
	kdf, key := NewKDF(quick), random(keySize)
	seal := func(plain []byte) []byte {
		t.Helper()
		var b bytes.Buffer
		s, err := newSealer(&b, kdf, key)
		wantIs(t, err, nil)
		_, err = s.Write(plain)
		wantIs(t, err, nil)
		wantIs(t, s.finish(), nil)
		return b.Bytes()
	}
	open := func(b []byte) ([]byte, error) {
		o, err := newOpener(bytes.NewReader(b), fixedKey(key))
		if err != nil {
			return nil, err
		}
		defer o.close()
		return io.ReadAll(o)
	}
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 3*chunkSize + 10} {
		plain := random(n)
		if got, err := open(seal(plain)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %d come back, %v", n, len(got), err)
		}
	}

	const chunk = chunkSize + tagSize
	good := seal(random(4 * chunkSize))
	parts := [][]byte{good[:backupHeader]}
	for c := range slices.Chunk(good[backupHeader:], chunk) {
		parts = append(parts, c)
	}
	if len(parts) != 5 {
		t.Fatalf("%d parts", len(parts))
	}
	for _, tt := range []struct {
		name  string
		order []int
	}{
		{"first two exchanged", []int{0, 2, 1, 3, 4}},
		{"middle two exchanged", []int{0, 1, 3, 2, 4}},
		{"last two exchanged", []int{0, 1, 2, 4, 3}},
		{"first left out", []int{0, 2, 3, 4}},
		{"middle left out", []int{0, 1, 3, 4}},
		{"last left out", []int{0, 1, 2, 3}},
		{"one twice", []int{0, 1, 2, 2, 3, 4}},
		{"last twice", []int{0, 1, 2, 3, 4, 4}},
		{"none", []int{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b []byte
			for _, i := range tt.order {
				b = append(b, parts[i]...)
			}
			if _, err := open(b); !errors.Is(err, ErrBackup) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Material is good for its own key and version only, even in a record whose
// MAC is right.
func TestMaterialIsBoundToItsKeyAndVersion(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	a, err := s.CreateKey(project, "a", "")
	wantIs(t, err, nil)
	b, err := s.CreateKey(project, "b", "")
	wantIs(t, err, nil)
	for name, change := range map[string]func(own *record, other record){
		"another key's":     func(own *record, other record) { own.Materials = other.Materials },
		"another version's": func(own *record, _ record) { own.Materials[0].Version, own.Current = 2, 2 },
		"another project's": func(own *record, _ record) { own.Project = "other" },
		"cut":               func(own *record, _ record) { own.Materials[0].Sealed = own.Materials[0].Sealed[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			err := s.view(func(tx *bbolt.Tx) error {
				own, err := s.find(tx, project, a.ID)
				if err != nil {
					return err
				}
				other, err := s.find(tx, project, b.ID)
				if err != nil {
					return err
				}
				if err := s.openMaterial(own, own.Current, make([]byte, keySize)); err != nil {
					return err
				}
				change(own, *other)
				err = s.openMaterial(own, own.Current, make([]byte, keySize))
				wantIs(t, err, ErrCorrupt)
				return nil
			})
			wantIs(t, err, nil)
		})
	}
}
