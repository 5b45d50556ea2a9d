package main

import (
	"bytes"
	"crypto/aes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"golang.org/x/crypto/xts"
)

// TestNaiveDiskEncrypts: the baseline does the work that it is the baseline
// of: what it stores is encrypted, sector by sector, and reads back.
func TestNaiveDiskEncrypts(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4 * naiveSector); err != nil {
		t.Fatal(err)
	}
	c, err := xts.NewCipher(aes.NewCipher, bytes.Repeat([]byte("0123456789abcdef"), 4))
	if err != nil {
		t.Fatal(err)
	}
	d := &naiveDisk{backend.NewFileBackend(f), c}
	clear := bytes.Repeat([]byte{7}, 2*naiveSector)
	if _, err := d.WriteAt(bytes.Clone(clear), naiveSector); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(clear))
	if _, err := d.ReadAt(got, naiveSector); err != nil || !bytes.Equal(got, clear) {
		t.Errorf("read back: %v, equal: %v", err, bytes.Equal(got, clear))
	}
	stored := make([]byte, len(clear))
	if _, err := f.ReadAt(stored, naiveSector); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(stored, clear[:16]) || bytes.Equal(stored[:naiveSector], stored[naiveSector:]) {
		t.Error("stored in clear, or two sectors alike")
	}
	if _, err := d.ReadAt(got[:512], 0); !errors.Is(err, errUnaligned) {
		t.Errorf("part of a sector: %v", err)
	}
}

func TestResident(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if part, err := resident(f); err != nil || part != 0 {
		t.Errorf("an empty file: %v, %v", part, err)
	}
	page := os.Getpagesize()
	if _, err := f.Write(make([]byte, page)); err != nil {
		t.Fatal(err)
	}
	// Three pages more that nobody wrote or read.
	if err := f.Truncate(int64(4 * page)); err != nil {
		t.Fatal(err)
	}
	if part, err := resident(f); err != nil || part != 0.25 {
		t.Errorf("one page of four just written: %v, %v", part, err)
	}
}
