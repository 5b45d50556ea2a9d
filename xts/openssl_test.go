package xts

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// openSSL answers a batch of units by OpenSSL, through python3-cryptography.
type openSSL struct {
	in bytes.Buffer
	n  int
}

func (o *openSSL) add(key []byte, tweakBytes [16]byte, data []byte, dir direction) {
	way := "encrypt"
	if dir == decrypt {
		way = "decrypt"
	}
	fmt.Fprintf(&o.in, "%s %x %x %x\n", way, key, tweakBytes, data)
	o.n++
}

func (o *openSSL) run(t *testing.T) [][]byte {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command("/usr/bin/python3", "testdata/openssl_xts.py")
	cmd.Stdin, cmd.Stderr = &o.in, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("OpenSSL through python3: %v\n%s\nhint: apt-get install python3-cryptography", err, &stderr)
	}
	lines := strings.Fields(string(out))
	if len(lines) != o.n {
		t.Fatalf("%d answers to %d questions", len(lines), o.n)
	}
	answers := make([][]byte, o.n)
	for i, l := range lines {
		answers[i] = unhex(t, l)
	}
	return answers
}

func plain64(n uint64) (b [16]byte) {
	binary.LittleEndian.PutUint64(b[:], n)
	return b
}

// Sectors of both sizes as dm-crypt numbers them (plain64 in units of 512 bytes:
// sector n of 4096 bytes has the tweak 8n), each also in pieces.
func TestSectorsEqualOpenSSL(t *testing.T) {
	type question struct {
		key, src   []byte
		sectorSize int
		sector     uint64
		dir        direction
	}
	r := random(20)
	var qs []question
	var o openSSL
	for _, keyLen := range []int{32, 64} {
		for _, sectorSize := range []int{512, 4096} {
			for _, sector := range []uint64{0, 1, 2, 7, 8, 255, 1<<20 + 3, 1<<32 - 1, 1<<40 + 12345} {
				for _, dir := range []direction{encrypt, decrypt} {
					q := question{randomBytes(r, keyLen), randomBytes(r, sectorSize), sectorSize, sector, dir}
					o.add(q.key, plain64(sector*uint64(sectorSize/512)), q.src, dir)
					qs = append(qs, q)
				}
			}
		}
	}
	answers := o.run(t)
	eachTier(t, func(t *testing.T) {
		for i, q := range qs {
			name := fmt.Sprintf("key %d, sector %d of %d bytes, decrypt %v", len(q.key), q.sector, q.sectorSize, q.dir)
			c := newCipher(t, q.key)
			pos := q.sector * uint64(q.sectorSize)
			if got := crypt(c, q.src, q.sectorSize, pos, q.dir, true); !bytes.Equal(got, answers[i]) {
				t.Errorf("%s: differs from OpenSSL", name)
			}
			for from := 0; from < q.sectorSize; from += GranuleSize {
				for to := from + GranuleSize; to <= q.sectorSize; to += GranuleSize {
					got := crypt(c, q.src[from:to], q.sectorSize, pos+uint64(from), q.dir, false)
					if !bytes.Equal(got, answers[i][from:to]) {
						t.Errorf("%s, bytes %d to %d: differs from OpenSSL", name, from, to)
					}
				}
			}
		}
	})
}

// Units of every length up to nine blocks under any tweak: ciphertext stealing.
func TestUnitsEqualOpenSSL(t *testing.T) {
	r := random(21)
	keys := [][]byte{randomBytes(r, 32), randomBytes(r, 64)}
	tweaks := make([][16]byte, 8)
	for i := range tweaks {
		tweaks[i] = [16]byte(randomBytes(r, 16))
	}
	src := randomBytes(r, 9*16)
	type question struct {
		key   []byte
		tweak [16]byte
		n     int
		dir   direction
	}
	var qs []question
	var o openSSL
	for n := 16; n <= len(src); n++ {
		for _, key := range keys {
			for _, dir := range []direction{encrypt, decrypt} {
				q := question{key, tweaks[n%len(tweaks)], n, dir}
				o.add(q.key, q.tweak, src[:n], dir)
				qs = append(qs, q)
			}
		}
	}
	answers := o.run(t)
	eachTier(t, func(t *testing.T) {
		for i, q := range qs {
			c := newCipher(t, q.key)
			for _, inPlace := range []bool{false, true} {
				if got := unit(c, src[:q.n], q.tweak, q.dir, inPlace); !bytes.Equal(got, answers[i]) {
					t.Errorf("key %d, %d bytes, decrypt %v, in place %v: %x, OpenSSL %x", len(q.key), q.n, q.dir, inPlace, got, answers[i])
				}
			}
		}
	})
}
