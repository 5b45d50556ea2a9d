package keystore

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

// A wrapped data key, version 1. Integers are big-endian.
//
//	offset  bytes
//	     0      4  "SDW" and 0x01
//	     4     16  key id (the UUID's bytes)
//	    20      4  version of the key's material
//	    24     24  nonce
//	    48      n  the data key, encrypted
//	  48+n     16  tag
//
// The cipher is XChaCha20-Poly1305 under that version of the key's material.
// What is authenticated beside the data key: wrapContext, the 24 bytes before
// the nonce, the length of the caller's additional data in two bytes, and
// the additional data.
const (
	wrapMagic    = "SDW\x01"
	wrapContext  = "sealdisk/kms/wrap/v1"
	wrapHeader   = 24
	wrapOverhead = wrapHeader + nonceSize + tagSize
	// MaxDataKey is the longest data key, in bytes (DEW's 8192 bits).
	MaxDataKey = 1024
)

// wrapped is a parsed wrapped data key; its slices alias the input.
type wrapped struct {
	keyID   string
	version uint32
	header  []byte
	nonce   []byte
	sealed  []byte
}

// parseWrapped takes a wrapped data key apart. It checks the form only: what
// it says is to be believed once it authenticates.
//
// Errors: kms.ErrBinding.
func parseWrapped(b []byte) (wrapped, error) {
	if len(b) <= wrapOverhead || len(b) > wrapOverhead+MaxDataKey || string(b[:4]) != wrapMagic {
		return wrapped{}, fmt.Errorf("%w: not a wrapped data key of this KMS", kms.ErrBinding)
	}
	id, err := uuid.FromBytes(b[4:20])
	if err != nil {
		return wrapped{}, fmt.Errorf("%w: %v", kms.ErrBinding, err)
	}
	return wrapped{
		keyID:   id.String(),
		version: binary.BigEndian.Uint32(b[20:24]),
		header:  b[:wrapHeader],
		nonce:   b[wrapHeader : wrapHeader+nonceSize],
		sealed:  b[wrapHeader+nonceSize:],
	}, nil
}

// size is the length of the data key inside, in bytes.
func (w wrapped) size() int { return len(w.sealed) - tagSize }

// wrapAAD is all that is authenticated beside the data key.
func wrapAAD(header []byte, aad string) []byte {
	b := make([]byte, 0, len(wrapContext)+wrapHeader+2+len(aad))
	b = append(b, wrapContext...)
	b = append(b, header...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(aad)))
	return append(b, aad...)
}

// sealDataKey wraps plain under the material of version of key id.
func sealDataKey(material []byte, id string, version uint32, plain []byte, aad string) ([]byte, error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("%w: key id: %v", ErrCorrupt, err)
	}
	b := make([]byte, 0, wrapOverhead+len(plain))
	b = append(b, wrapMagic...)
	b = append(b, u[:]...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = append(b, random(nonceSize)...)
	return sealX(b, material, b[wrapHeader:], plain, wrapAAD(b[:wrapHeader], aad))
}

func checkAAD(aad string) error {
	if len(aad) > api.MaxAAD {
		return fmt.Errorf("%w: additional authenticated data of %d bytes, at most %d", ErrParameter, len(aad), api.MaxAAD)
	}
	return nil
}

func versionString(v uint32) string { return strconv.FormatUint(uint64(v), 10) }
