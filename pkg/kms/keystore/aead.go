package keystore

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

const (
	keySize   = chacha20poly1305.KeySize    // 32 bytes
	nonceSize = chacha20poly1305.NonceSizeX // 24 bytes
	tagSize   = chacha20poly1305.Overhead   // 16 bytes
)

var errOpen = errors.New("does not authenticate")

// sealX appends the XChaCha20-Poly1305 encryption of plain to dst.
func sealX(dst, key, nonce, plain, aad []byte) ([]byte, error) {
	var out []byte
	err := withXChaCha(key, nonce, func(a cipher.AEAD, short []byte) error {
		out = a.Seal(dst, short, plain, aad)
		return nil
	})
	return out, err
}

// openX appends the plaintext to dst, whose capacity must hold it so that no
// copy is made elsewhere.
func openX(dst, key, nonce, sealed, aad []byte) ([]byte, error) {
	var out []byte
	err := withXChaCha(key, nonce, func(a cipher.AEAD, short []byte) error {
		var err error
		if out, err = a.Open(dst, short, sealed, aad); err != nil {
			return errOpen
		}
		return nil
	})
	return out, err
}

// withXChaCha does what chacha20poly1305.NewX does (draft-irtf-cfrg-xchacha,
// section 2.3), but clears the sub-key and the copy of it that New keeps on
// the heap, which NewX gives no means to.
func withXChaCha(key, nonce []byte, f func(a cipher.AEAD, short []byte) error) error {
	if len(nonce) != nonceSize {
		return fmt.Errorf("nonce of %d bytes", len(nonce))
	}
	sub, err := chacha20.HChaCha20(key, nonce[:16])
	if err != nil {
		return err
	}
	defer clear(sub)
	a, err := chacha20poly1305.New(sub)
	if err != nil {
		return err
	}
	defer wipe(a)
	var short [chacha20poly1305.NonceSize]byte
	copy(short[4:], nonce[16:])
	return f(a, short[:])
}

// wipe zeroes the byte arrays inside *a: the key that New copied there. A test
// sees to it that this still holds when x/crypto changes.
func wipe(a cipher.AEAD) {
	p := reflect.ValueOf(a)
	if p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Struct {
		return
	}
	for i := range p.Elem().NumField() {
		f := p.Elem().Field(i)
		if f.Kind() == reflect.Array && f.Type().Elem().Kind() == reflect.Uint8 {
			clear(unsafe.Slice((*byte)(unsafe.Pointer(f.UnsafeAddr())), f.Len()))
		}
	}
}
