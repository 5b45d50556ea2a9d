package xts

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A vector is one case of a CAVP response file (.rsp).
type vector struct {
	name       string
	dir        direction
	bits       int
	key        []byte
	tweak      [16]byte
	plain, enc []byte
}

// readVectors parses a .rsp file: sections in brackets, then blocks of "name =
// value".
func readVectors(tb testing.TB, path string) []vector {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var vs []vector
	dir := encrypt
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		switch line {
		case "[ENCRYPT]":
			dir = encrypt
		case "[DECRYPT]":
			dir = decrypt
		}
		name, value, ok := strings.Cut(line, " = ")
		if !ok || line[0] == '#' {
			continue
		}
		if name == "COUNT" {
			vs = append(vs, vector{name: value, dir: dir})
		}
		v := &vs[len(vs)-1]
		switch name {
		case "DataUnitLen":
			v.bits, err = strconv.Atoi(value)
		case "Key":
			v.key = unhex(tb, value)
		case "i":
			v.tweak = [16]byte(unhex(tb, value))
		case "DataUnitSeqNumber":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 64)
			binary.LittleEndian.PutUint64(v.tweak[:], n)
		case "PT":
			v.plain = unhex(tb, value)
		case "CT":
			v.enc = unhex(tb, value)
		}
		if err != nil {
			tb.Fatalf("%s, case %s: %v", path, v.name, err)
		}
	}
	if err := sc.Err(); err != nil {
		tb.Fatal(err)
	}
	return vs
}

// run checks the vector both ways, into other memory and in place.
func (v *vector) run(t *testing.T) {
	t.Helper()
	c := newCipher(t, v.key)
	if got := unit(c, v.plain, v.tweak, encrypt, false); !bytes.Equal(got, v.enc) {
		t.Errorf("case %s: encrypted %x, want %x", v.name, got, v.enc)
	}
	if got := unit(c, v.enc, v.tweak, decrypt, false); !bytes.Equal(got, v.plain) {
		t.Errorf("case %s: decrypted %x, want %x", v.name, got, v.plain)
	}
	if got := unit(c, v.plain, v.tweak, encrypt, true); !bytes.Equal(got, v.enc) {
		t.Errorf("case %s: encrypted in place %x, want %x", v.name, got, v.enc)
	}
	if got := unit(c, v.enc, v.tweak, decrypt, true); !bytes.Equal(got, v.plain) {
		t.Errorf("case %s: decrypted in place %x, want %x", v.name, got, v.plain)
	}
}

// unit runs EncryptUnit or DecryptUnit, into other memory or in place.
func unit(c *Cipher, src []byte, tweakBytes [16]byte, dir direction, inPlace bool) []byte {
	dst := bytes.Clone(src)
	if inPlace {
		src = dst
	} else {
		clear(dst)
	}
	if dir == encrypt {
		c.EncryptUnit(dst, src, tweakBytes)
	} else {
		c.DecryptUnit(dst, src, tweakBytes)
	}
	return dst
}

// vectorDir is where the two folders of NIST's XTS vectors are: in
// $SEALDISK_XTS_VECTORS, else where Debian's package puts them.
func vectorDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SEALDISK_XTS_VECTORS")
	if dir == "" {
		dir = "/usr/lib/python3/dist-packages/cryptography_vectors/ciphers/AES/XTS"
	}
	if _, err := os.Stat(filepath.Join(dir, "tweak-128hexstr")); err != nil {
		t.Fatalf("NIST's XTS vectors are missing (%v)\n"+
			"hint: apt-get install python3-cryptography-vectors, or set SEALDISK_XTS_VECTORS to the directory that holds tweak-128hexstr and tweak-dataunitseqno", err)
	}
	return dir
}

// NIST CAVP, XTSGen: every case of whole bytes, of both ways to write the tweak.
func TestNISTVectors(t *testing.T) {
	dir := vectorDir(t)
	for _, folder := range []string{"tweak-128hexstr", "tweak-dataunitseqno"} {
		for _, f := range []struct {
			name         string
			keyLen       int
			cases, whole int
		}{
			{"XTSGenAES128.rsp", 32, 1000, 800}, // 200 of 130 bits
			{"XTSGenAES256.rsp", 64, 1000, 600}, // 200 of 140, 200 of 250 bits
		} {
			vs := readVectors(t, filepath.Join(dir, folder, f.name))
			if len(vs) != f.cases {
				t.Errorf("%s/%s: %d cases, want %d", folder, f.name, len(vs), f.cases)
			}
			t.Run(folder+"/"+f.name, func(t *testing.T) {
				eachTier(t, func(t *testing.T) {
					whole, ways := 0, [2]int{}
					for i := range vs {
						v := &vs[i]
						if v.bits%8 != 0 {
							continue
						}
						if len(v.key) != f.keyLen || len(v.plain) != v.bits/8 || len(v.enc) != v.bits/8 {
							t.Fatalf("case %s is not what its header says", v.name)
						}
						whole++
						if v.dir == decrypt {
							ways[1]++
						} else {
							ways[0]++
						}
						v.run(t)
					}
					if whole != f.whole || ways[0] != ways[1] {
						t.Errorf("ran %d cases (%d of encryption, %d of decryption), want %d", whole, ways[0], ways[1], f.whole)
					}
				})
			})
		}
	}
}

// IEEE 1619 annex B: vectors 2 to 5, 10, and 15 to 18 (ciphertext stealing).
func TestIEEE1619Vectors(t *testing.T) {
	vs := readVectors(t, "testdata/ieee1619-annex-b.rsp")
	if len(vs) != 9 {
		t.Fatalf("%d vectors, want 9", len(vs))
	}
	eachTier(t, func(t *testing.T) {
		for i := range vs {
			vs[i].run(t)
			if len(vs[i].plain) != 512 {
				continue
			}
			// The same as a sector of a disk: sector n of 512 bytes has the
			// tweak n.
			n := binary.LittleEndian.Uint64(vs[i].tweak[:])
			c := newCipher(t, vs[i].key)
			if got := crypt(c, vs[i].plain, 512, n*512, encrypt, false); !bytes.Equal(got, vs[i].enc) {
				t.Errorf("vector %s as a sector: %x", vs[i].name, got)
			}
		}
	})
}

// Vector 1 of annex B has the key 0 twice: FIPS 140-3 forbids what IEEE 1619 shows.
func TestIEEE1619Vector1IsRefused(t *testing.T) {
	if err := Expand(storage(), make([]byte, 32)); !errors.Is(err, ErrEqualHalves) {
		t.Errorf("Expand = %v, want ErrEqualHalves", err)
	}
}
