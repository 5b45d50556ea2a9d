package keystore

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/crypto/argon2"

	"sealdisk/pkg/api"
	"sealdisk/pkg/secmem"
)

const saltSize = 16 // bytes, RFC 9106 section 3.1

// KDF holds the parameters of Argon2id (RFC 9106) that turned a passphrase
// into a key. None of them is secret.
type KDF struct {
	Salt    []byte `json:"salt"`   // 16 bytes
	Time    uint32 `json:"time"`   // passes
	Memory  uint32 `json:"memory"` // KiB
	Threads uint8  `json:"threads"`
}

// DefaultKDF is the second recommended option of RFC 9106 section 4: 64 MiB,
// 3 passes, 4 lanes. The salt is still to be chosen: see NewKDF.
var DefaultKDF = KDF{Time: 3, Memory: 64 << 10, Threads: 4}

// NewKDF returns k with a fresh salt.
func NewKDF(k KDF) KDF {
	k.Salt = random(saltSize)
	return k
}

// Check refuses parameters that no sealdisk writes: a damaged or hostile file
// must not make the reader allocate without bound.
func (k KDF) Check() error {
	if len(k.Salt) != saltSize || k.Time < 1 || k.Time > 64 || k.Threads < 1 || k.Threads > 64 ||
		k.Memory < 8*uint32(k.Threads) || k.Memory > 1<<20 {
		return fmt.Errorf("parameters of Argon2id out of range: %d passes, %d KiB, %d lanes, %d bytes of salt",
			k.Time, k.Memory, k.Threads, len(k.Salt))
	}
	return nil
}

// Derive returns the 32-byte key of the passphrase, in locked memory that the
// caller destroys. Argon2id's working memory is given back to the kernel.
func (k KDF) Derive(passphrase []byte) (*secmem.Buffer, error) {
	if err := k.Check(); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 {
		return nil, &api.Error{Class: api.ClassUsage, Message: "the passphrase is empty"}
	}
	buf, err := secmem.Lock(keySize)
	if err != nil {
		return nil, err
	}
	key := argon2.IDKey(passphrase, k.Salt, k.Time, k.Memory, k.Threads, keySize)
	copy(buf.Bytes(), key)
	clear(key)
	debug.FreeOSMemory()
	return buf, nil
}
