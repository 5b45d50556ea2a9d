package keyscan

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	mrand "math/rand/v2"
	"strings"
	"testing"
)

func randomDK(t *testing.T) []byte {
	t.Helper()
	dk := make([]byte, 64)
	rand.Read(dk)
	return dk
}

// scanned is what a scan of b finds, by kind.
func scanned(b []byte, n *Needles) (needles, schedules int) {
	rep := new(Report)
	rep.scan(b, 0x1000, "", n)
	for _, f := range rep.Findings {
		if strings.Contains(f.What, "schedule, round keys") {
			schedules++
		} else {
			needles++
		}
	}
	return needles, schedules
}

// noise is memory without a key.
func noise(n int) []byte {
	b := make([]byte, n)
	r := mrand.New(mrand.NewPCG(1, 2))
	for i := 0; i < n/2; i += 8 { // half of it empty
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

func TestForms(t *testing.T) {
	dk := randomDK(t)
	n, err := KeyNeedles(dk)
	if err != nil {
		t.Fatal(err)
	}
	sched, err := schedule(dk)
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string][]byte{
		"DK":                    dk,
		"first half":            dk[:32],
		"second half":           dk[32:],
		"a part":                dk[16:40],
		"hexadecimal":           []byte(hex.EncodeToString(dk)),
		"HEXADECIMAL":           []byte(strings.ToUpper(hex.EncodeToString(dk))),
		"hexadecimal of a half": []byte(hex.EncodeToString(dk[32:])),
		"base64":                []byte(base64.StdEncoding.EncodeToString(dk)),
		"base64, off by one":    []byte(base64.StdEncoding.EncodeToString(append([]byte("x"), dk...))),
		"base64, off by two":    []byte(base64.URLEncoding.EncodeToString(append([]byte("xy"), dk...))),
		"base64 of a half":      []byte(base64.StdEncoding.EncodeToString(dk[32:])),
		"schedule":              sched,
	} {
		for _, at := range []int{0, 1, 2, 3, 777} {
			mem := noise(1 << 16)
			copy(mem[1<<15+at:], form)
			if found, _ := scanned(mem, n); found == 0 {
				t.Errorf("%s at %d is not found", name, at)
			}
		}
	}
	// Any part of a schedule that holds something, bitsliced round keys too.
	for at := 0; at+256 <= len(sched); at += 64 {
		part := sched[at : at+256]
		if kinds(part[:64]) < 3 || kinds(part[192:]) < 3 {
			continue
		}
		mem := noise(1 << 16)
		copy(mem[1<<15+5:], part)
		if found, _ := scanned(mem, n); found == 0 {
			t.Errorf("bytes %d to %d of a schedule are not found", at, at+256)
		}
	}
	if found, schedules := scanned(noise(4<<20), n); found+schedules != 0 {
		t.Errorf("%d findings in noise", found+schedules)
	}
}

// An unknown key's schedule is found by its structure alone.
func TestSchedules(t *testing.T) {
	for _, keyLen := range []int{16, 32} {
		key := make([]byte, keyLen)
		rand.Read(key)
		enc := expandKey(key)
		dec := inverse(enc)
		for _, stride := range []int{16, 32, 64} {
			for name, keys := range map[string][][16]byte{"encryption": enc, "decryption": dec} {
				for _, bigEndian := range []bool{false, true} {
					mem := noise(1 << 16)
					for i, k := range keys {
						if bigEndian {
							k = swapped(k)
						}
						for rep := 0; rep < stride; rep += 16 {
							copy(mem[1<<15+4+i*stride+rep:], k[:])
						}
					}
					if _, found := scanned(mem, nil); found == 0 {
						t.Errorf("%s, %d-bit key, %d bytes apart, big endian %v: not found", name, 8*keyLen, stride, bigEndian)
					}
				}
			}
		}
		// A part of one, in the middle.
		mem := noise(1 << 16)
		for i, k := range enc[3:9] {
			copy(mem[1<<15+i*16:], k[:])
		}
		if _, found := scanned(mem, nil); found == 0 {
			t.Errorf("%d-bit key: a part of its schedule is not found", 8*keyLen)
		}
	}
}

func TestNoFalseSchedules(t *testing.T) {
	counting := make([]byte, 1<<16)
	for i := range counting {
		counting[i] = byte(i)
	}
	var crc []byte // linear, as schedules are
	for i := range 4096 {
		v := uint32(i)
		for range 8 {
			v = v>>1 ^ 0xedb88320&-(v&1)
		}
		crc = binary.LittleEndian.AppendUint32(crc, v)
	}
	for name, mem := range map[string][]byte{
		"empty": make([]byte, 1<<16), "ones": bytes.Repeat([]byte{0xff}, 1<<16), "counting": counting, "CRC table": crc,
		"text": bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. "), 2000),
	} {
		if _, found := scanned(mem, nil); found != 0 {
			t.Errorf("%s: %d schedules", name, found)
		}
	}
}

// What lies across two pieces of a region is found, once.
func TestSeams(t *testing.T) {
	dk := randomDK(t)
	n, err := KeyNeedles(dk)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{chunkSize - 8, chunkSize - 1, chunkSize, 2*chunkSize - 20} {
		mem := make([]byte, 3*chunkSize)
		copy(mem[at:], dk[:16])
		rep := new(Report)
		rep.scanRegion(bytes.NewReader(mem), Region{From: 0, To: uint64(len(mem)), Perm: "rw-p"}, n)
		if len(rep.Findings) != 1 || rep.Findings[0].Addr != uint64(at) || rep.Bytes != uint64(len(mem)) {
			t.Errorf("key at %#x: %v, %d bytes read", at, rep.Findings, rep.Bytes)
		}
	}
}

// An AES key expansion of the tests' own (FIPS 197 sections 5.2 and 5.3.5), so
// that the scanner is not measured by the code it judges.

func expandKey(key []byte) [][16]byte {
	nk := len(key) / 4
	rounds := nk + 6
	w := make([]uint32, 4*(rounds+1))
	for i := range nk {
		w[i] = binary.BigEndian.Uint32(key[4*i:])
	}
	rcon := uint32(1)
	for i := nk; i < len(w); i++ {
		t := w[i-1]
		switch {
		case i%nk == 0:
			t = subWord(bits.RotateLeft32(t, 8)) ^ rcon<<24
			rcon = uint32(mul(byte(rcon), 2))
		case nk > 6 && i%nk == 4:
			t = subWord(t)
		}
		w[i] = w[i-nk] ^ t
	}
	keys := make([][16]byte, rounds+1)
	for i, v := range w {
		binary.BigEndian.PutUint32(keys[i/4][i%4*4:], v)
	}
	return keys
}

// inverse is the schedule of the equivalent inverse cipher, in the order of use.
func inverse(enc [][16]byte) [][16]byte {
	dec := make([][16]byte, len(enc))
	for i := range enc {
		k := enc[len(enc)-1-i]
		if i > 0 && i < len(enc)-1 {
			for c := 0; c < 16; c += 4 {
				a := [4]byte(k[c:])
				for r := range 4 {
					k[c+r] = mul(a[r], 14) ^ mul(a[(r+1)%4], 11) ^ mul(a[(r+2)%4], 13) ^ mul(a[(r+3)%4], 9)
				}
			}
		}
		dec[i] = k
	}
	return dec
}

func swapped(k [16]byte) (s [16]byte) {
	for c := 0; c < 16; c += 4 {
		binary.LittleEndian.PutUint32(s[c:], binary.BigEndian.Uint32(k[c:]))
	}
	return s
}

func mul(a, b byte) (p byte) {
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		a = a<<1 ^ 0x1b&-(a>>7)
	}
	return p
}

func subWord(w uint32) (s uint32) {
	for i := 0; i < 32; i += 8 {
		x := byte(w >> i)
		inv := byte(0)
		for y := 1; y < 256 && inv == 0; y++ {
			if mul(x, byte(y)) == 1 {
				inv = byte(y)
			}
		}
		v := inv ^ bits.RotateLeft8(inv, 1) ^ bits.RotateLeft8(inv, 2) ^ bits.RotateLeft8(inv, 3) ^ bits.RotateLeft8(inv, 4) ^ 0x63
		s |= uint32(v) << i
	}
	return s
}
