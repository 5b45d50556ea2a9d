package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// keyOf derives a backup's key from a passphrase.
func keyOf(p string) func(KDF) (*secmem.Buffer, error) {
	return func(k KDF) (*secmem.Buffer, error) { return k.Derive([]byte(p)) }
}

// backup makes one of s under the passphrase p.
func backup(t testing.TB, s *Store, p string) []byte {
	t.Helper()
	kdf := NewKDF(quick)
	key, err := kdf.Derive([]byte(p))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	var b bytes.Buffer
	if err := s.Backup(&b, kdf, key.Bytes()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRestoreOnAnEmptyDirectory(t *testing.T) {
	for name, root := range map[string]RootSource{
		"file":       {},
		"passphrase": {Passphrase: passphrase("root words"), KDF: quick},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, storeDir(t), root)
			k, err := s.CreateKey(project, "k", "")
			wantIs(t, err, nil)
			dk, again := make([]byte, 64), make([]byte, 64)
			_, w, err := s.NewDataKey(project, "k", "aad", dk)
			wantIs(t, err, nil)
			b := backup(t, s, "backup words")
			_, err = s.CreateKey(project, "later", "")
			wantIs(t, err, nil)
			wantIs(t, s.Close(), nil)

			parent := t.TempDir()
			dir := filepath.Join(parent, "kms")
			info, err := Restore(bytes.NewReader(b), keyOf("backup words"), dir)
			if err != nil || info.StoreID != s.id || info.Root != root.Mode() {
				t.Fatalf("%+v, %v", info, err)
			}
			_, err = os.Stat(filepath.Join(dir, rootFileName))
			if name == "passphrase" != errors.Is(err, os.ErrNotExist) {
				t.Errorf("root key file of a %s store: %v", name, err)
			}
			restored := open(t, dir, root)
			if n, err := restored.Unwrap(project, k.ID, w, "aad", again); err != nil || n != 64 || !bytes.Equal(dk, again) {
				t.Errorf("unwrapping after the restore: %d bytes, %v", n, err)
			}
			_, err = restored.Key(project, "later")
			wantIs(t, err, kms.ErrNotFound)
			if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
				t.Errorf("left beside the store: %v, %v", left, err)
			}
		})
	}
}

func TestRestoreNeverReplaces(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	b := backup(t, s, "p")
	dir := storeDir(t)
	wantIs(t, os.Mkdir(dir, 0o700), nil)
	write(t, filepath.Join(dir, "something"), nil, 0o600)
	_, err := Restore(bytes.NewReader(b), keyOf("p"), dir)
	if api.ClassOf(err) != api.ClassConflict || !strings.Contains(err.Error(), "something") {
		t.Errorf("%v", err)
	}
	wantIs(t, os.Remove(filepath.Join(dir, "something")), nil)
	if _, err = Restore(bytes.NewReader(b), keyOf("p"), dir); err != nil {
		t.Errorf("into an empty directory: %v", err)
	}
}

func TestDamagedBackups(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	for i := range 150 { // more than one chunk
		if _, err := s.CreateKey(project, fmt.Sprintf("k%d", i), strings.Repeat("x", 200)); err != nil {
			t.Fatal(err)
		}
	}
	good := backup(t, s, "p")
	if _, err := VerifyBackup(bytes.NewReader(good), keyOf("p")); err != nil {
		t.Fatal(err)
	}
	const chunk = chunkSize + tagSize
	if len(good) < backupHeader+2*chunk {
		t.Fatalf("the backup has %d bytes, wanted are three chunks", len(good))
	}
	swapped := bytes.Clone(good)
	copy(swapped[backupHeader:], good[backupHeader+chunk:backupHeader+2*chunk])
	copy(swapped[backupHeader+chunk:], good[backupHeader:backupHeader+chunk])
	left := append(bytes.Clone(good[:backupHeader]), good[backupHeader+chunk:]...)
	other := backup(t, s, "p")
	mixed := append(bytes.Clone(good[:backupHeader+chunk]), other[backupHeader+chunk:]...)

	tests := []struct {
		name string
		b    []byte
		pass string
		want error
	}{
		{"wrong passphrase", good, "q", ErrPassphrase},
		{"empty file", nil, "p", ErrBackup},
		{"another file", bytes.Repeat([]byte("not a backup\n"), 100), "p", ErrBackup},
		{"header only", good[:backupHeader], "p", ErrBackup},
		{"cut at a chunk", good[:backupHeader+chunk], "p", ErrBackup},
		{"cut after two chunks", good[:backupHeader+2*chunk], "p", ErrBackup},
		{"last byte missing", good[:len(good)-1], "p", ErrBackup},
		{"a byte more", append(bytes.Clone(good), 0), "p", ErrBackup},
		{"chunks exchanged", swapped, "p", ErrBackup},
		{"a chunk left out", left, "p", ErrBackup},
		{"chunks of two backups", mixed, "p", ErrBackup},
		{"newer version", append(append(bytes.Clone(good[:20]), 2), good[21:]...), "p", ErrFormat},
		{"terabytes for Argon2id", append(append(bytes.Clone(good[:26]), 0xff), good[27:]...), "p", ErrBackup},
	}
	for i := range backupHeader {
		if i < len(backupMagic) || i >= 30 { // lanes, passes and memory: another key, slowly
			want := ErrPassphrase
			if i < len(backupMagic) {
				want = ErrBackup
			}
			tests = append(tests, struct {
				name string
				b    []byte
				pass string
				want error
			}{fmt.Sprintf("header byte %d", i), flip(good, i), "p", want})
		}
	}
	for i := backupHeader; i < len(good); i += 4999 {
		tests = append(tests, struct {
			name string
			b    []byte
			pass string
			want error
		}{fmt.Sprintf("byte %d", i), flip(good, i), "p", ErrBackup})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := VerifyBackup(bytes.NewReader(tt.b), keyOf(tt.pass))
			wantIs(t, err, tt.want)
			parent := t.TempDir()
			_, err = Restore(bytes.NewReader(tt.b), keyOf(tt.pass), filepath.Join(parent, "kms"))
			wantIs(t, err, tt.want)
			if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
				t.Errorf("a failed restore leaves %v, %v", left, err)
			}
		})
	}
}

func TestBackupNeverHoldsTheRootKeyInPlain(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	root := bytes.Clone(s.root())
	b := backup(t, s, "p")
	if bytes.Contains(b, root[:8]) || bytes.Contains(b, []byte(`"check"`)) {
		t.Error("the backup is not encrypted")
	}
	if a := backup(t, s, "p"); bytes.Equal(a[backupHeader:], b[backupHeader:]) {
		t.Error("two backups are the same")
	}
}

// A backup that is under way is of one moment, whatever is written meanwhile.
func TestBackupOfARunningStore(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	for i := range 20 {
		if _, err := s.CreateKey(project, fmt.Sprintf("before%d", i), strings.Repeat("x", 200)); err != nil {
			t.Fatal(err)
		}
	}
	kdf := NewKDF(quick)
	key, err := kdf.Derive([]byte("p"))
	wantIs(t, err, nil)
	defer key.Destroy()
	var b bytes.Buffer
	i := 0
	err = s.Backup(writer(func(p []byte) (int, error) { // each write of the backup meets new keys, and waits for them
		for range 10 {
			i++
			if _, err := s.CreateKey(project, fmt.Sprintf("during%d", i), strings.Repeat("x", 200)); err != nil {
				return 0, err
			}
		}
		return b.Write(p)
	}), kdf, key.Bytes())
	wantIs(t, err, nil)
	if i == 0 {
		t.Error("nothing was written meanwhile")
	}
	dir := storeDir(t)
	if _, err := Restore(&b, keyOf("p"), dir); err != nil {
		t.Fatal(err)
	}
	keys, err := open(t, dir, RootSource{}).Keys(project)
	if err != nil || len(keys) != 20 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

type writer func([]byte) (int, error)

func (f writer) Write(p []byte) (int, error) { return f(p) }

func TestBackupTellsAFullDisk(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	kdf := NewKDF(quick)
	full := errors.New("no space")
	for _, after := range []int{0, backupHeader} {
		n := 0
		err := s.Backup(writer(func(p []byte) (int, error) {
			if n += len(p); n > after {
				return 0, full
			}
			return len(p), nil
		}), kdf, make([]byte, keySize))
		wantIs(t, err, full)
	}
	_, err := VerifyBackup(io.MultiReader(), keyOf("p"))
	wantIs(t, err, ErrBackup)
}
