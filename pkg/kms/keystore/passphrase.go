package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"sealdisk/pkg/api"
	"sealdisk/pkg/secmem"
)

// maxPassphrase bounds a passphrase, in bytes.
const maxPassphrase = 4096

// ReadPassphraseFile returns the first line of the file, which only its owner
// may be able to read. The caller destroys what it returns.
func ReadPassphraseFile(path string) (*secmem.Buffer, error) {
	f, _, err := openPrivate(path, "the passphrase file", privateMode)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadPassphrase(f)
}

// ReadPassphrase returns the first line of r without its end. The caller
// destroys what it returns.
func ReadPassphrase(r io.Reader) (*secmem.Buffer, error) {
	scratch, err := secmem.Lock(maxPassphrase + 2)
	if err != nil {
		return nil, err
	}
	defer scratch.Destroy()
	b := scratch.Bytes()
	n := 0
	for n < len(b) && bytes.IndexByte(b[:n], '\n') < 0 {
		m, err := r.Read(b[n:])
		n += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
	}
	line, _, _ := bytes.Cut(b[:n], []byte{'\n'})
	line = bytes.TrimSuffix(line, []byte{'\r'})
	return NewPassphrase(line)
}

// NewPassphrase copies a passphrase into locked memory and clears b.
func NewPassphrase(b []byte) (*secmem.Buffer, error) {
	defer clear(b)
	if len(b) == 0 || len(b) > maxPassphrase {
		return nil, &api.Error{Class: api.ClassUsage, Message: fmt.Sprintf("a passphrase has from 1 to %d bytes", maxPassphrase)}
	}
	buf, err := secmem.Lock(len(b))
	if err != nil {
		return nil, err
	}
	copy(buf.Bytes(), b)
	return buf, nil
}
