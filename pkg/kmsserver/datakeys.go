package kmsserver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/secmem"
)

// mayBind decides who may use which additional data: those of disks only the
// service, which uses no others.
func (c *call) mayBind(aad string) error {
	reserved := strings.HasPrefix(aad, api.AADReserved)
	switch {
	case reserved && c.role != roleService:
		return &reply{http.StatusForbidden, api.CodeKMSDeniedKey, fmt.Sprintf("data keys bound to %q are for the disk service only", api.AADReserved)}
	case !reserved && c.role == roleService:
		return &reply{http.StatusForbidden, api.CodeKMSDeniedKey, fmt.Sprintf("the disk service binds its data keys to %q", api.AADReserved)}
	}
	return nil
}

// dataKeySpecs are the key_spec values in bytes that this KMS can make.
var dataKeySpecs = map[string]int{"": 32, "AES_256": 32, "AES_128": 16, "HMAC_256": 32, "HMAC_384": 48, "HMAC_512": 64}

// datakeyRequest decodes and checks a request for a data key. lengthCode is
// the code for a bad length, which differs between the two operations.
func (c *call) datakeyRequest(lengthCode string) (q api.CreateDatakeyRequest, size int, err error) {
	if err := c.decode(&q); err != nil {
		return q, 0, err
	}
	if q.KeyID == "" {
		return q, 0, missing("key_id")
	}
	if err := c.mayBind(q.AAD); err != nil {
		return q, 0, err
	}
	if q.DatakeyLength != "" {
		bits, err := number(q.DatakeyLength, 0, 8, 8*keystore.MaxDataKey)
		if err != nil || bits%8 != 0 {
			return q, 0, &reply{http.StatusBadRequest, lengthCode, "datakey_length is in bits, a multiple of 8 from 8 to 8192"}
		}
		return q, bits / 8, nil
	}
	size, ok := dataKeySpecs[q.KeySpec]
	if !ok {
		return q, 0, badParameter(fmt.Sprintf("key_spec %.32q: not a kind of data key that this KMS makes", q.KeySpec))
	}
	return q, size, nil
}

func (s *Server) createDatakeyWithoutPlaintext(c *call) (any, error) {
	q, size, err := c.datakeyRequest(api.CodeKMSDKLengthWP)
	if err != nil {
		return nil, err
	}
	buf, err := secmem.Lock(size)
	if err != nil {
		return nil, err
	}
	defer buf.Destroy()
	k, sealed, err := s.store.NewDataKey(c.project, q.KeyID, q.AAD, buf.Bytes())
	if err != nil {
		return nil, err
	}
	s.audit(c, logfield.Key(k.ID))
	return api.CreateDatakeyResponse{KeyID: k.ID, CipherText: hex.EncodeToString(sealed), KeyVersion: k.Version}, nil
}

func (s *Server) createDatakey(c *call) (any, error) {
	q, size, err := c.datakeyRequest(api.CodeKMSDKLength)
	if err != nil {
		return nil, err
	}
	buf, err := secmem.Lock(size)
	if err != nil {
		return nil, err
	}
	defer buf.Destroy()
	k, sealed, err := s.store.NewDataKey(c.project, q.KeyID, q.AAD, buf.Bytes())
	if err != nil {
		return nil, err
	}
	s.audit(c, logfield.Key(k.ID))
	return nil, c.sendSecret(
		fmt.Sprintf(`{"key_id":%q,"key_version":%q,"cipher_text":"%x","plain_text":"`, k.ID, k.Version, sealed),
		buf.Bytes(), `"}`+"\n")
}

func (s *Server) decryptDatakey(c *call) (any, error) {
	var q api.DecryptDatakeyRequest
	if err := c.decode(&q); err != nil {
		return nil, err
	}
	switch {
	case q.KeyID == "":
		return nil, missing("key_id")
	case q.CipherText == "":
		return nil, missing("cipher_text")
	case q.CipherLength == "":
		return nil, missing("datakey_cipher_length")
	}
	if err := c.mayBind(q.AAD); err != nil {
		return nil, err
	}
	size, err := number(q.CipherLength, 0, 1, keystore.MaxDataKey)
	if err != nil {
		return nil, &reply{http.StatusBadRequest, api.CodeKMSCipherLength, "datakey_cipher_length is in bytes, from 1 to 1024"}
	}
	sealed, err := hex.DecodeString(q.CipherText)
	if err != nil {
		return nil, &reply{http.StatusBadRequest, api.CodeKMSCipherText, "cipher_text is not hexadecimal"}
	}
	buf, err := secmem.Lock(size)
	if err != nil {
		return nil, err
	}
	defer buf.Destroy()
	n, err := s.store.Unwrap(c.project, q.KeyID, sealed, q.AAD, buf.Bytes())
	if err != nil {
		return nil, err
	}
	if n != size {
		return nil, &reply{http.StatusBadRequest, api.CodeKMSCipherLength, "datakey_cipher_length is not the length of this data key"}
	}
	s.audit(c, logfield.Key(q.KeyID))
	digest := sha256.Sum256(buf.Bytes())
	return nil, c.sendSecret(
		`{"datakey_length":"`+strconv.Itoa(n)+`","datakey_dgst":"`+hex.EncodeToString(digest[:])+`","data_key":"`,
		buf.Bytes(), `"}`+"\n")
}
