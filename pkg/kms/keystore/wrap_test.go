package keystore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/crypto/chacha20poly1305"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// The format as its documentation says it, written by hand.
func TestWrappedFormat(t *testing.T) {
	material, plain := random(keySize), random(64)
	id := uuid.MustParse("0d0466b0-e727-4d9c-b35d-f84bb474a37f")
	const aad = "sealdisk:v1:default:x"
	b, err := sealDataKey(material, id.String(), 258, plain, aad)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 4+16+4+24+64+16 {
		t.Errorf("%d bytes", len(b))
	}
	head := append([]byte{'S', 'D', 'W', 1}, id[:]...)
	head = append(head, 0, 0, 1, 2)
	if !bytes.Equal(b[:24], head) {
		t.Errorf("header %x, want %x", b[:24], head)
	}
	c, err := chacha20poly1305.NewX(material)
	if err != nil {
		t.Fatal(err)
	}
	ad := append([]byte("sealdisk/kms/wrap/v1"), head...)
	ad = append(ad, 0, byte(len(aad)))
	ad = append(ad, aad...)
	got, err := c.Open(nil, b[24:48], b[48:], ad)
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("another implementation cannot open it: %v", err)
	}
}

func TestUnwrapWantsKeyVersionAndData(t *testing.T) {
	s := open(t, storeDir(t), RootSource{})
	k, err := s.CreateKey(project, "k", "")
	wantIs(t, err, nil)
	_, err = s.CreateKey(project, "other", "")
	wantIs(t, err, nil)
	_, w, err := s.NewDataKey(project, "k", "aad", make([]byte, 64))
	wantIs(t, err, nil)
	version2 := bytes.Clone(w)
	binary.BigEndian.PutUint32(version2[20:], 2)
	for _, tt := range []struct {
		name, key, aad string
		w              []byte
		room           int
		want           error
	}{
		{"as wrapped", "k", "aad", w, 64, nil},
		{"more room", "k", "aad", w, 128, nil},
		{"other data", "k", "Aad", w, 64, kms.ErrBinding},
		{"no data", "k", "", w, 64, kms.ErrBinding},
		{"other key", "other", "aad", w, 64, kms.ErrBinding},
		{"version that never was", "k", "aad", version2, 64, kms.ErrBinding},
		{"too little room", "k", "aad", w, 63, kms.ErrBinding},
		{"empty", "k", "aad", nil, 64, kms.ErrBinding},
		{"too long data", "k", strings.Repeat("a", api.MaxAAD+1), w, 64, ErrParameter},
		{"no such key", "missing", "aad", w, 64, kms.ErrNotFound},
		{"no possible key", "a b", "aad", w, 64, ErrKeyID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dst := make([]byte, tt.room)
			_, err := s.Unwrap(project, tt.key, tt.w, tt.aad, dst)
			wantIs(t, err, tt.want)
			if err != nil && !bytes.Equal(dst, make([]byte, tt.room)) {
				t.Error("a refused call left bytes in the destination")
			}
		})
	}
	for _, n := range []int{0, MaxDataKey + 1} {
		_, _, err := s.NewDataKey(project, k.ID, "", make([]byte, n))
		wantIs(t, err, ErrParameter)
	}
	for _, n := range []int{1, 16, MaxDataKey} {
		dk, again := make([]byte, n), make([]byte, n)
		_, w, err := s.NewDataKey(project, k.ID, "", dk)
		wantIs(t, err, nil)
		if m, err := s.Unwrap(project, k.ID, w, "", again); err != nil || m != n || !bytes.Equal(dk, again) {
			t.Errorf("data key of %d bytes: %d, %v", n, m, err)
		}
	}
}

func FuzzParseWrapped(f *testing.F) {
	material := bytes.Repeat([]byte{1}, keySize)
	good, err := sealDataKey(material, "0d0466b0-e727-4d9c-b35d-f84bb474a37f", 1, make([]byte, 64), "a")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:wrapOverhead])
	f.Add(good[:wrapOverhead+1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := parseWrapped(b)
		if err != nil {
			if !errors.Is(err, kms.ErrBinding) {
				t.Errorf("%v", err)
			}
			return
		}
		again := bytes.Join([][]byte{w.header, w.nonce, w.sealed}, nil)
		if !bytes.Equal(again, b) || w.size() < 1 || w.size() > MaxDataKey {
			t.Errorf("%d bytes parse to %d", len(b), len(again))
		}
		if _, err := uuid.Parse(w.keyID); err != nil {
			t.Error(err)
		}
	})
}

// fixedKey answers every header with the same key.
func fixedKey(key []byte) func(KDF) (*secmem.Buffer, error) {
	return func(KDF) (*secmem.Buffer, error) { return NewPassphrase(bytes.Clone(key)) }
}

func FuzzBackup(f *testing.F) {
	s := open(f, storeDir(f), RootSource{})
	good := backup(f, s, "p")
	f.Add(good)
	f.Add(good[:backupHeader])
	f.Add(good[:backupHeader+100])
	derived, err := KDF{Salt: good[30:46], Time: quick.Time, Memory: quick.Memory, Threads: quick.Threads}.Derive([]byte("p"))
	if err != nil {
		f.Fatal(err)
	}
	key := bytes.Clone(derived.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		// The key is the right one whatever the header asks for, so that the
		// parts behind it are reached.
		_, err := VerifyBackup(bytes.NewReader(b), fixedKey(key))
		switch {
		case err == nil:
			if !bytes.Equal(b, good) {
				t.Error("a changed backup is taken for whole")
			}
		case !errors.Is(err, ErrBackup) && !errors.Is(err, ErrPassphrase) && !errors.Is(err, ErrFormat):
			t.Errorf("%v", err)
		}
	})
}

// FuzzBackupContents reaches what is inside a backup, which only its maker can change.
func FuzzBackupContents(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add(append([]byte("\x00\x00\x00\x2f"), `{"format":1,"size":5,"root_key":"file"}`+strings.Repeat("k", 45)...))
	kdf := NewKDF(quick)
	key := random(keySize)
	f.Fuzz(func(t *testing.T, inside []byte) {
		var b bytes.Buffer
		out, err := newSealer(&b, kdf, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(inside); err != nil {
			t.Fatal(err)
		}
		if err := out.finish(); err != nil {
			t.Fatal(err)
		}
		_, err = VerifyBackup(&b, fixedKey(key))
		if err != nil && !errors.Is(err, ErrBackup) && !errors.Is(err, ErrFormat) {
			t.Errorf("%v", err)
		}
	})
}

func FuzzRootKeyFile(f *testing.F) {
	f.Add([]byte(rootPrefix + strings.Repeat("ab", keySize) + "\n"))
	f.Add([]byte(rootPrefix + strings.Repeat("ab", keySize)))
	f.Add(make([]byte, keySize))
	f.Fuzz(func(t *testing.T, b []byte) {
		dst := make([]byte, keySize)
		err := parseRootKey("f", bytes.NewReader(b), int64(len(b)), dst)
		if err != nil && !errors.Is(err, ErrRootKeyFile) {
			t.Errorf("%v", err)
		}
	})
}
