package blockdev_test

import (
	"bytes"
	"crypto/aes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	refxts "golang.org/x/crypto/xts"

	"sealdisk/blockdev"
	bt "sealdisk/blockdev/blockdevtest"
	"sealdisk/xts"
)

const toy = bt.Cipher(5)

// onRAM is a Crypt on a RAM disk of 64 KiB.
func onRAM(t testing.TB, opt blockdev.CryptOptions) (*blockdev.Crypt, []byte) {
	t.Helper()
	ram := bt.NewRAM(65536, nil)
	c, err := blockdev.NewCrypt(ram, toy, opt)
	check(t, err)
	return c, ram.Bytes()
}

func TestNewCryptRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		opt  blockdev.CryptOptions
		want error
	}{
		{"no sector size", blockdev.CryptOptions{}, blockdev.ErrGeometry},
		{"sector size 1024", blockdev.CryptOptions{SectorSize: 1024, Holes: true}, blockdev.ErrGeometry},
		{"discard without holes", blockdev.CryptOptions{SectorSize: 512, Discard: true}, blockdev.ErrNotSupported},
	} {
		if _, err := blockdev.NewCrypt(bt.NewRAM(8192, nil), toy, c.opt); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestCryptHoleIsWholeGranule: a granule whose ciphertext merely begins with
// zeros, at any length, is data.
func TestCryptHoleIsWholeGranule(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		c, raw := onRAM(t, blockdev.CryptOptions{SectorSize: sector, Holes: true})
		for _, at := range []int64{0, 512, 4096 + 512} {
			for _, zeros := range []int{1, 8, 9, 16, 64, 504, 511} {
				cipher := bytes.Repeat([]byte{0xff}, 512)
				clear(cipher[:zeros])
				plain := make([]byte, 512)
				toy.Decrypt(plain, cipher, sector, uint64(at))
				check(t, c.WriteAt(bytes.Clone(plain), at, 0))
				if !bytes.Equal(raw[at:at+512], cipher) {
					t.Fatal("stored other ciphertext")
				}
				got := make([]byte, 512)
				check(t, c.ReadAt(got, at))
				if !bytes.Equal(got, plain) {
					t.Errorf("sector %d, granule at %d with %d leading zeros of ciphertext reads otherwise", sector, at, zeros)
				}
			}
			tail := make([]byte, 512) // zeros but for the last byte
			tail[511] = 1
			copy(raw[at:], tail)
			want := make([]byte, 512)
			toy.Decrypt(want, tail, sector, uint64(at))
			got := make([]byte, 512)
			check(t, c.ReadAt(got, at))
			if !bytes.Equal(got, want) {
				t.Error("a granule whose last byte alone is set was taken for a hole")
			}
		}
	}
}

// TestCryptHolesAmongData: each granule of a sector is a hole or not by itself.
func TestCryptHolesAmongData(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for pattern := range 256 {
			c, raw := onRAM(t, blockdev.CryptOptions{SectorSize: sector, Holes: true})
			plain := bytes.Repeat([]byte("plain text of 16"), 4096/16)
			check(t, c.WriteAt(bytes.Clone(plain), 8192, 0))
			for g := range 8 {
				if pattern>>g&1 == 1 {
					clear(raw[8192+g*512 : 8192+(g+1)*512])
					clear(plain[g*512 : (g+1)*512])
				}
			}
			got := make([]byte, 4096)
			check(t, c.ReadAt(got, 8192))
			if !bytes.Equal(got, plain) {
				t.Fatalf("sector %d, holes %08b: reads otherwise", sector, pattern)
			}
		}
	}
}

// TestCryptRefusesZeroCiphertext: what would read as a hole can't be written,
// and nothing is changed by the try.
func TestCryptRefusesZeroCiphertext(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		c, raw := onRAM(t, blockdev.CryptOptions{SectorSize: sector, Holes: true})
		check(t, c.WriteAt(bytes.Repeat([]byte{3}, 65536), 0, 0))
		before := bytes.Clone(raw)
		for _, w := range []struct {
			name  string
			off   int64
			n     int
			bad   int64 // the granule that would be zeros
			whole bool
		}{
			{"granule", 1024, 512, 1024, true},
			{"among others", 0, 8192, 4608, true},
			{"last of many", 4096, 8192, 11776, true},
		} {
			p := bytes.Repeat([]byte{4}, w.n)
			toy.Decrypt(p[w.bad-w.off:w.bad-w.off+512], make([]byte, 512), sector, uint64(w.bad))
			if err := c.WriteAt(p, w.off, blockdev.FUA); !errors.Is(err, blockdev.ErrIO) {
				t.Errorf("%s: %v, want ErrIO", w.name, err)
			}
			if !bytes.Equal(raw, before) {
				t.Errorf("%s: something was stored", w.name)
			}
		}
		// A part of a granule, completing zeros.
		zero := make([]byte, 512)
		toy.Decrypt(zero, zero, sector, 512)
		first := bytes.Clone(zero)
		first[0] ^= 1
		check(t, c.WriteAt(bytes.Clone(first), 512, 0))
		if err := c.WriteAt(zero[:1], 512, 0); !errors.Is(err, blockdev.ErrIO) {
			t.Errorf("by a byte: %v, want ErrIO", err)
		}
		got := make([]byte, 512)
		check(t, c.ReadAt(got, 512))
		if !bytes.Equal(got, first) {
			t.Error("by a byte: something was stored")
		}
	}
}

// TestCryptWithoutHoles: a finalized disk stores and reads zeros of ciphertext
// like any other and never makes holes.
func TestCryptWithoutHoles(t *testing.T) {
	c, raw := onRAM(t, blockdev.CryptOptions{SectorSize: 4096})
	plain := make([]byte, 512)
	toy.Decrypt(plain, plain, 4096, 512)
	got := make([]byte, 512)
	check(t, c.ReadAt(got, 512))
	if !bytes.Equal(got, plain) {
		t.Error("zeros of ciphertext are not decrypted")
	}
	check(t, c.WriteAt(bytes.Clone(plain), 512, 0))
	check(t, c.WriteAt(bytes.Repeat([]byte{1}, 65536), 0, 0))
	check(t, c.Trim(0, 65536, 0))
	check(t, c.WriteZeroes(4096, 4096, 0))
	if err := c.WriteZeroes(0, 65536, blockdev.FastZero); !errors.Is(err, blockdev.ErrNotSupported) {
		t.Errorf("FastZero: %v, want ErrNotSupported", err)
	}
	for g := 0; g < len(raw); g += 512 {
		if bytes.Equal(raw[g:g+512], make([]byte, 512)) {
			t.Fatalf("there is a hole at byte %d", g)
		}
	}
	e, err := c.Extents(nil, 100, 5000, 3)
	if err != nil || len(e) != 1 || e[0] != (blockdev.Extent{Off: 100, Len: 5000}) {
		t.Errorf("extents %v, %v: want one of data", e, err)
	}
}

// TestCryptHolesOnDisk: which requests leave a hole in the ciphertext.
func TestCryptHolesOnDisk(t *testing.T) {
	all := blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true}
	for _, c := range []struct {
		name   string
		opt    blockdev.CryptOptions
		do     func(*blockdev.Crypt) error
		lo, hi int // the bytes that are holes then
	}{
		{"trim", all, func(c *blockdev.Crypt) error { return c.Trim(4000, 5000, 0) }, 4096, 8704},
		{"trim within a granule", all, func(c *blockdev.Crypt) error { return c.Trim(4100, 300, 0) }, 0, 0},
		{"trim across a border", all, func(c *blockdev.Crypt) error { return c.Trim(4100, 900, 0) }, 0, 0},
		{"trim, discard off", blockdev.CryptOptions{SectorSize: 4096, Holes: true},
			func(c *blockdev.Crypt) error { return c.Trim(4000, 5000, 0) }, 0, 0},
		{"zeroes", all, func(c *blockdev.Crypt) error { return c.WriteZeroes(4000, 5000, 0) }, 4096, 8704},
		{"zeroes, no hole", all, func(c *blockdev.Crypt) error { return c.WriteZeroes(4000, 5000, blockdev.NoHole) }, 0, 0},
		{"writing zeros", all, func(c *blockdev.Crypt) error { return c.WriteAt(make([]byte, 5000), 4000, 0) }, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, raw := onRAM(t, c.opt)
			check(t, x.WriteAt(bytes.Repeat([]byte{1}, 65536), 0, 0))
			check(t, c.do(x))
			for g := 0; g < len(raw); g += 512 {
				hole := bytes.Equal(raw[g:g+512], make([]byte, 512))
				if hole != (g >= c.lo && g < c.hi) {
					t.Errorf("granule at byte %d is a hole: %v", g, hole)
				}
			}
		})
	}
}

// TestCryptZeroingKeepsHole: zeroing part of a hole leaves it one.
func TestCryptZeroingKeepsHole(t *testing.T) {
	c, raw := onRAM(t, blockdev.CryptOptions{SectorSize: 512, Holes: true})
	check(t, c.WriteZeroes(100, 2000, blockdev.FUA))
	if !bytes.Equal(raw, make([]byte, len(raw))) {
		t.Error("zeroing parts of holes wrote something")
	}
}

// TestCryptCopiesOfTheFile: a copy that punches zeros, or fills holes, reads
// the same.
func TestCryptCopiesOfTheFile(t *testing.T) {
	for name, dir := range fileSystems(t) {
		t.Run(name, func(t *testing.T) {
			opt := blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true}
			open := func(path string) *blockdev.Crypt {
				c, err := blockdev.NewCrypt(openFile(t, path, blockdev.FileOptions{Discard: true}), toy, opt)
				check(t, err)
				return c
			}
			path := filepath.Join(dir, "disk")
			sparse(t, path, 1<<20)
			c := open(path)
			want := make([]byte, 1<<20)
			for i := 0; i < 1<<20; i += 65536 {
				p := bytes.Repeat([]byte{byte(i>>16) + 1}, 20000)
				copy(want[i+300:], p)
				check(t, c.WriteAt(p, int64(i)+300, 0))
			}
			check(t, c.WriteZeroes(0, 10000, 0))
			clear(want[:10000])
			check(t, c.Close())

			image, err := os.ReadFile(path)
			check(t, err)
			full, thin := filepath.Join(dir, "full"), filepath.Join(dir, "thin")
			check(t, os.WriteFile(full, image, 0o600)) // every hole filled
			sparse(t, thin, 1<<20)
			f, err := os.OpenFile(thin, os.O_RDWR, 0)
			check(t, err)
			for i := 0; i < len(image); i += 512 { // every zero granule a hole
				if g := image[i : i+512]; !bytes.Equal(g, make([]byte, 512)) {
					_, err := f.WriteAt(g, int64(i))
					check(t, err)
				}
			}
			check(t, f.Close())
			for _, copied := range []string{path, full, thin} {
				c := open(copied)
				got := make([]byte, 1<<20)
				check(t, c.ReadAt(got, 0))
				check(t, c.Close())
				if !bytes.Equal(got, want) {
					t.Errorf("%s reads otherwise", filepath.Base(copied))
				}
			}
		})
	}
}

// TestCryptOnDiskFormat: what is stored is AES-XTS as an independent
// implementation has it, with dm-crypt's tweaks, whatever pieces it was written
// in.
func TestCryptOnDiskFormat(t *testing.T) {
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i * 7)
	}
	ref, err := refxts.NewCipher(aes.NewCipher, key)
	check(t, err)
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			sparse(t, path, 16384+65536)
			sched := make([]byte, xts.ScheduleSize+64)
			for uintptrOf(sched)%64 != 0 {
				sched = sched[1:]
			}
			sched = sched[:xts.ScheduleSize]
			check(t, xts.Expand(sched, key))
			c, err := blockdev.NewCrypt(openFile(t, path, blockdev.FileOptions{Offset: 16384, Discard: true}), xts.New(sched),
				blockdev.CryptOptions{SectorSize: sector, Holes: true, Discard: true})
			check(t, err)
			want := make([]byte, 65536)
			for i := range want {
				want[i] = byte(i >> 3)
			}
			check(t, c.WriteAt(make([]byte, 65536), 0, 0))
			for off, n := 0, 1; off < len(want); off, n = off+n, n*3%5000+1 {
				n = min(n, len(want)-off)
				check(t, c.WriteAt(bytes.Clone(want[off:off+n]), int64(off), 0))
			}
			check(t, c.Close())
			image, err := os.ReadFile(path)
			check(t, err)
			got := image[16384:]
			if bytes.Contains(image, want[2048:2064]) {
				t.Error("plain text is in the file")
			}
			for i := 0; i < len(got); i += sector {
				ref.Decrypt(got[i:i+sector], got[i:i+sector], uint64(i/512))
			}
			if !bytes.Equal(got, want) {
				t.Error("the independent implementation decrypts it otherwise")
			}
		})
	}
}
