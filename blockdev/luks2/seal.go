package luks2

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// macInfo is HKDF's info for the key of the token's MAC.
const macInfo = "sealdisk/header/v1"

// AAD is the additional authenticated data that binds the wrapped DK to its
// project and disk: "sealdisk:v1:<project>:<disk id>". It has at most 128 bytes if
// project and disk id are ones that Seal accepts; neither can hold a colon.
func (t *Token) AAD() string {
	return AADScheme + ":" + t.Project + ":" + t.DiskID
}

// Seal makes the digest of dk, with a fresh salt, and the token's MAC over h. dk has KeySize
// bytes; it is not kept. h is unchanged if an error is returned, which is
// ErrInvalid for a header that could not be read back.
//
// The MAC is HMAC-SHA256 under HKDF-SHA256(dk, no salt, info "sealdisk/header/v1", 32 bytes)
// over the following fields in this order. A text or byte string is written as its
// length in bytes (uint32) and its bytes, a number as uint64, both
// big-endian; the order and number of fields are fixed, so no two headers have the same encoding:
//
//	text   "sealdisk/header/v1"
//	text   UUID
//	text   segment's encryption (Cipher)
//	number sector size; number data offset; number data size (0 for dynamic)
//	number count of mandatory requirements; text each
//	text   token type; text provider; text key id; text key version
//	bytes  wrapped DK
//	text   AAD scheme; text disk id; text project
//	number generation
//	text   digest type ("pbkdf2"); text hash; number iterations; bytes salt; bytes value
//
// Not covered: label, subsystem, sequence number, salts and checksums of the copies, keyslots and
// references to them, activation flags: cryptsetup changes these without the MAC's key.
//
// Seal and Verify hand dk to the standard library, which copies it on the
// heap: call them in a process that soon ends.
func (h *Header) Seal(dk []byte) error {
	if len(dk) != KeySize {
		return fmt.Errorf("sealing the header: data key of %d bytes, want %d", len(dk), KeySize)
	}
	n := *h
	if n.Token.AADScheme == "" {
		n.Token.AADScheme = AADScheme
	}
	if err := n.check(false); err != nil {
		return fmt.Errorf("sealing the header: %w: %w", ErrInvalid, err)
	}
	n.Digest = Digest{Hash: "sha256", Iterations: minIterations, Salt: make([]byte, saltSize)}
	if _, err := rand.Read(n.Digest.Salt); err != nil {
		return fmt.Errorf("sealing the header: %w", err)
	}
	var err error
	if n.Digest.Value, err = n.Digest.of(dk); err != nil {
		return fmt.Errorf("sealing the header: %w", err)
	}
	if n.Token.MAC, err = n.mac(dk); err != nil {
		return fmt.Errorf("sealing the header: %w", err)
	}
	*h = n
	return nil
}

// Verify checks digest and MAC of h with dk, in constant time. It returns
// ErrWrongKey if dk is not this disk's, ErrForged if dk is but h is not as it was
// sealed, ErrUnsupported for a digest that Seal does not make. It does not know
// whether the generation is recent: that is the catalog's to check.
func (h *Header) Verify(dk []byte) error {
	if err := VolumeKeyCheck(h, dk); err != nil {
		return err
	}
	mac, err := h.mac(dk)
	if err != nil {
		return fmt.Errorf("verifying the header: %w", err)
	}
	if subtle.ConstantTimeCompare(mac, h.Token.MAC) != 1 {
		return fmt.Errorf("verifying the header: %w", ErrForged)
	}
	return nil
}

// VolumeKeyCheck checks dk against the digest alone, as cryptsetup does. It
// returns ErrWrongKey, or ErrUnsupported for a digest that Seal does not
// make. The header may be forged all the same: use Verify.
func VolumeKeyCheck(h *Header, dk []byte) error {
	if err := h.Digest.check(); err != nil {
		return fmt.Errorf("checking the data key: %w: %w", ErrUnsupported, err)
	}
	if len(dk) != KeySize {
		return fmt.Errorf("checking the data key: %d bytes, want %d: %w", len(dk), KeySize, ErrWrongKey)
	}
	v, err := h.Digest.of(dk)
	if err != nil {
		return fmt.Errorf("checking the data key: %w", err)
	}
	if subtle.ConstantTimeCompare(v, h.Digest.Value) != 1 {
		return fmt.Errorf("checking the data key: %w", ErrWrongKey)
	}
	return nil
}

// of is the digest's value for dk.
func (d *Digest) of(dk []byte) ([]byte, error) {
	return pbkdf2.Key(sha256.New, string(dk), d.Salt, d.Iterations, sha256.Size)
}

// mac is the token's MAC over h: see Seal.
func (h *Header) mac(dk []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, dk, nil, macInfo, sha256.Size)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	m := hmac.New(sha256.New, key)
	m.Write(h.macInput())
	return m.Sum(nil), nil
}

// macInput is the encoding that the MAC covers: see Seal.
func (h *Header) macInput() []byte {
	var b []byte
	text := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	number := func(n uint64) { b = binary.BigEndian.AppendUint64(b, n) }
	text(macInfo)
	text(h.UUID)
	text(Cipher)
	number(uint64(h.SectorSize))
	number(uint64(h.DataOffset))
	number(uint64(h.DataSize))
	number(uint64(len(h.Requirements)))
	for _, r := range h.Requirements {
		text(r)
	}
	t := &h.Token
	text(TokenType)
	text(t.Provider)
	text(t.KeyID)
	text(t.KeyVersion)
	text(string(t.WrappedDK))
	text(t.AADScheme)
	text(t.DiskID)
	text(t.Project)
	number(t.Generation)
	text("pbkdf2")
	text(h.Digest.Hash)
	number(uint64(h.Digest.Iterations))
	text(string(h.Digest.Salt))
	text(string(h.Digest.Value))
	return b
}
