package keystore

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"sealdisk/pkg/api"
	"sealdisk/pkg/secmem"
)

// A backup file, version 1. Integers are big-endian.
//
//	offset  bytes
//	     0     20  "SEALDISK-KMS-BACKUP" and a newline
//	    20      1  version, 1
//	    21      1  Argon2id: lanes
//	    22      4  Argon2id: passes
//	    26      4  Argon2id: memory in KiB
//	    30     16  Argon2id: salt
//	    46     19  nonce prefix
//	    65     16  check: the start of HMAC-SHA256(key, checkLabel and bytes 0–64)
//	    81         chunks
//
// The key is Argon2id of the passphrase. A chunk is up to chunkSize bytes under
// XChaCha20-Poly1305, with the nonce: prefix, number of the chunk from 0 in 4
// bytes, and 1 for the last chunk, else 0; bytes 0–64 are authenticated beside it. All
// chunks but the last are full. So chunks can be neither exchanged, left out
// nor added, and a file that was cut is seen to be.
const (
	backupMagic   = "SEALDISK-KMS-BACKUP\n"
	backupVersion = 1
	prefixSize    = nonceSize - 5
	checkSize     = 16
	authSize      = len(backupMagic) + 2 + 8 + saltSize + prefixSize
	backupHeader  = authSize + checkSize
	chunkSize     = 64 << 10
	checkLabel    = "sealdisk/kms/backup/check/v1"
)

var (
	// ErrBackup is returned for a file that is no backup, or a damaged or cut one.
	ErrBackup = errors.New("the backup cannot be read")
	// ErrPassphrase is returned when the passphrase is not the backup's.
	ErrPassphrase = errors.New("wrong passphrase")
)

func damagedBackup(why string) error {
	return &api.Error{Class: api.ClassCorrupt, Err: ErrBackup, Message: "the backup cannot be read: " + why, Hint: "use another copy of it"}
}

func backupCheck(key, auth []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(checkLabel))
	h.Write(auth)
	return h.Sum(nil)[:checkSize]
}

func chunkNonce(auth []byte, n uint32, last bool) []byte {
	b := bytes.Clone(auth[authSize-prefixSize : authSize])
	b = binary.BigEndian.AppendUint32(b, n)
	if last {
		return append(b, 1)
	}
	return append(b, 0)
}

// sealer encrypts what is written to it. Its plaintext is in locked memory.
type sealer struct {
	w    io.Writer
	key  []byte
	auth []byte
	n    uint32
	buf  *secmem.Buffer
	fill int
	out  []byte
}

// newSealer writes the header of a backup under key, which kdf made, to w.
// finish or abandon must follow.
func newSealer(w io.Writer, kdf KDF, key []byte) (*sealer, error) {
	if err := kdf.Check(); err != nil {
		return nil, err
	}
	h := make([]byte, 0, backupHeader)
	h = append(h, backupMagic...)
	h = append(h, backupVersion, kdf.Threads)
	h = binary.BigEndian.AppendUint32(h, kdf.Time)
	h = binary.BigEndian.AppendUint32(h, kdf.Memory)
	h = append(h, kdf.Salt...)
	h = append(h, random(prefixSize)...)
	h = append(h, backupCheck(key, h)...)
	if _, err := w.Write(h); err != nil {
		return nil, err
	}
	buf, err := secmem.Lock(chunkSize)
	if err != nil {
		return nil, err
	}
	return &sealer{w: w, key: key, auth: h[:authSize], buf: buf}, nil
}

// Write implements io.Writer.
func (s *sealer) Write(p []byte) (int, error) {
	done := 0
	for len(p) > 0 {
		if s.fill == chunkSize {
			if err := s.flush(false); err != nil {
				return done, err
			}
		}
		n := copy(s.buf.Bytes()[s.fill:], p)
		s.fill, p, done = s.fill+n, p[n:], done+n
	}
	return done, nil
}

func (s *sealer) flush(last bool) error {
	b := s.buf.Bytes()[:s.fill]
	var err error
	if s.out, err = sealX(s.out[:0], s.key, chunkNonce(s.auth, s.n, last), b, s.auth); err != nil {
		return err
	}
	clear(b)
	s.fill = 0
	s.n++
	_, err = s.w.Write(s.out)
	return err
}

// finish writes the last chunk.
func (s *sealer) finish() error { return errors.Join(s.flush(true), s.abandon()) }

func (s *sealer) abandon() error { return s.buf.Destroy() }

// opener decrypts a backup.
type opener struct {
	r    io.Reader
	key  *secmem.Buffer
	auth []byte
	n    uint32
	buf  *secmem.Buffer // the chunk's plaintext
	rest []byte         // of buf, not yet read
	in   []byte         // the chunk, and the first byte after it
	have int            // bytes in in
	last bool
}

// newOpener reads the header of a backup and asks keyOf for its key.
func newOpener(r io.Reader, keyOf func(KDF) (*secmem.Buffer, error)) (*opener, error) {
	h := make([]byte, backupHeader)
	if _, err := io.ReadFull(r, h); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, damagedBackup("it is too short")
		}
		return nil, fmt.Errorf("reading the backup: %w", err)
	}
	b, ok := cutPrefix(h, backupMagic)
	if !ok {
		return nil, damagedBackup("it is not a backup of the KMS")
	}
	if b[0] != backupVersion {
		return nil, &api.Error{Class: api.ClassConflict, Err: ErrFormat, Message: fmt.Sprintf("the backup has version %d, this sealdisk knows %d", b[0], backupVersion),
			Hint: "use the sealdisk that wrote it, or a newer one"}
	}
	kdf := KDF{Threads: b[1], Time: binary.BigEndian.Uint32(b[2:]), Memory: binary.BigEndian.Uint32(b[6:]), Salt: b[10 : 10+saltSize]}
	if err := kdf.Check(); err != nil {
		return nil, damagedBackup(err.Error())
	}
	key, err := keyOf(kdf)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(backupCheck(key.Bytes(), h[:authSize]), h[authSize:]) {
		return nil, errors.Join(&api.Error{Class: api.ClassDenied, Err: ErrPassphrase, Message: "wrong passphrase for this backup (or its first bytes are damaged)"}, key.Destroy())
	}
	buf, err := secmem.Lock(chunkSize)
	if err != nil {
		return nil, errors.Join(err, key.Destroy())
	}
	return &opener{r: r, key: key, auth: h[:authSize], buf: buf, in: make([]byte, chunkSize+tagSize+1)}, nil
}

// close clears what was decrypted.
func (o *opener) close() error { return errors.Join(o.buf.Destroy(), o.key.Destroy()) }

// Read implements io.Reader. It gives io.EOF only after the last chunk.
func (o *opener) Read(p []byte) (int, error) {
	for len(o.rest) == 0 {
		if o.last {
			return 0, io.EOF
		}
		if err := o.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

// next decrypts a chunk. Whether it is the last one shows by what follows it.
func (o *opener) next() error {
	n, err := io.ReadFull(o.r, o.in[o.have:])
	n += o.have
	switch {
	case err == nil: // one byte of the next chunk is there too
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		o.last = true
	default:
		return fmt.Errorf("reading the backup: %w", err)
	}
	chunk := o.in[:n]
	if !o.last {
		chunk = o.in[:n-1]
	}
	plain, err := openX(o.buf.Bytes()[:0], o.key.Bytes(), chunkNonce(o.auth, o.n, o.last), chunk, o.auth)
	if err != nil {
		return damagedBackup(fmt.Sprintf("it is damaged or was cut short in part %d", o.n+1))
	}
	o.rest, o.have = plain, 0
	o.n++
	if !o.last {
		o.in[0], o.have = o.in[n-1], 1
	}
	return nil
}
