package keystore

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

func TestXChaChaIsTheStandardOne(t *testing.T) {
	for _, n := range []int{0, 1, 32, 64, 1024, chunkSize} {
		key, nonce, plain, aad := random(keySize), random(nonceSize), random(n), random(n%37)
		got, err := sealX(nil, key, nonce, plain, aad)
		if err != nil {
			t.Fatal(err)
		}
		oracle, err := chacha20poly1305.NewX(key)
		if err != nil {
			t.Fatal(err)
		}
		if want := oracle.Seal(nil, nonce, plain, aad); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: not what chacha20poly1305.NewX makes", n)
		}
		back, err := openX(nil, key, nonce, got, aad)
		if err != nil || !bytes.Equal(back, plain) {
			t.Errorf("%d bytes: %v", n, err)
		}
		for _, bad := range []struct {
			name              string
			key, nonce, c, ad []byte
		}{
			{"key", random(keySize), nonce, got, aad},
			{"nonce", key, random(nonceSize), got, aad},
			{"ciphertext", key, nonce, flip(got, 0), aad},
			{"tag", key, nonce, flip(got, len(got)-1), aad},
			{"additional data", key, nonce, got, append(bytes.Clone(aad), 0)},
		} {
			if _, err := openX(nil, bad.key, bad.nonce, bad.c, bad.ad); !errors.Is(err, errOpen) {
				t.Errorf("%d bytes, another %s: %v", n, bad.name, err)
			}
		}
	}
}

func flip(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 1
	return c
}

// An x/crypto that keeps its copy of the key elsewhere would fail this.
func TestWipeClearsTheCopyOfTheKey(t *testing.T) {
	key, nonce := random(keySize), make([]byte, chacha20poly1305.NonceSize)
	a, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	zero, err := chacha20poly1305.New(make([]byte, keySize))
	if err != nil {
		t.Fatal(err)
	}
	seal := func(a cipher.AEAD) []byte { return a.Seal(nil, nonce, []byte("x"), nil) }
	if bytes.Equal(seal(a), seal(zero)) {
		t.Fatal("the two keys are the same")
	}
	wipe(a)
	if !bytes.Equal(seal(a), seal(zero)) {
		t.Error("after wipe the cipher still has its key")
	}
}

func TestOpenDecryptsInPlace(t *testing.T) {
	key, nonce, plain := random(keySize), random(nonceSize), random(64)
	c, err := sealX(nil, key, nonce, plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 64)
	if _, err := openX(dst[:0:64], key, nonce, c, nil); err != nil || !bytes.Equal(dst, plain) {
		t.Errorf("the plaintext is not where it was wanted: %v", err)
	}
}
