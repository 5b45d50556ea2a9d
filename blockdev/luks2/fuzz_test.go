package luks2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// seeds are the first 32 KiB of headers: ours, damaged ones, and cryptsetup's
// where it is installed (that those are refused is test/ondisk's to show).
func seeds(f *testing.F) [][]byte {
	h := newHeader()
	whole := formatted(f, h).b
	finalized := newHeader()
	finalized.Requirements, finalized.DataSize, finalized.SectorSize = nil, 1<<30, 512
	finalized.Kept = Kept{Keyslots: []byte(`{"0":{"type":"luks2","key_size":64,"area":{"offset":"32768"}}}`), DigestKeyslots: []string{"0"}, Flags: []string{"no-journal"}}
	out := [][]byte{nil, whole, whole[:copySize], whole[:5000], formatted(f, finalized).b}
	newer := &memFile{bytes.Clone(whole)}
	if err := Write(newer, h); err != nil {
		f.Fatal(err)
	}
	out = append(out, newer.b, append(bytes.Clone(newer.b[:copySize]), whole[copySize:]...))
	if _, err := exec.LookPath("cryptsetup"); err == nil {
		for _, args := range [][]string{
			{"--type", "luks2"},
			{"--type", "luks2", "-c", Cipher, "-s", "512", "--sector-size", "512", "--label", "l", "--subsystem", "s"},
			{"--type", "luks2", "--luks2-metadata-size", "64k", "--luks2-keyslots-size", "4m"},
			{"--type", "luks1"},
		} {
			out = append(out, foreign(f, args...))
		}
	}
	return out
}

// foreign is the start of a header that cryptsetup made.
func foreign(f *testing.F, args ...string) []byte {
	path := filepath.Join(f.TempDir(), "foreign.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 20<<20)); err != nil {
		f.Fatal(err)
	}
	cmd := exec.Command("cryptsetup", append([]string{"luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", path}, args...)...)
	cmd.Stdin = strings.NewReader("passphrase")
	if msg, err := cmd.CombinedOutput(); err != nil {
		f.Fatalf("%v: %s", err, msg)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return raw[:2*copySize]
}

// readAgain fails unless h, written to a new file, reads back in the same
// meaning and its MAC covers that meaning alone.
func readAgain(t *testing.T, h *Header) {
	t.Helper()
	f := &memFile{}
	again := *h
	if err := Format(f, &again); err != nil {
		t.Fatalf("what Read accepted can't be written: %v\n%v", err, h)
	}
	got, cond := mustRead(t, f)
	if !cond.Healthy() {
		t.Fatal(cond)
	}
	want := *h
	want.SeqID = got.SeqID
	normal(&want)
	normal(got)
	if !reflect.DeepEqual(got, &want) {
		t.Fatalf("read %+v, wrote %+v", *got, want)
	}
	if decoded := decodeMACInput(t, h.macInput()); !reflect.DeepEqual(decoded, covered(*h)) {
		t.Fatalf("the MAC's encoding says %+v of %+v", decoded, covered(*h))
	}
}

// normal makes empty lists nil, which mean the same.
func normal(h *Header) {
	for _, l := range []*[]string{&h.Requirements, &h.Kept.DigestKeyslots, &h.Kept.TokenKeyslots, &h.Kept.Flags} {
		if len(*l) == 0 {
			*l = nil
		}
	}
}

// covered is what the MAC covers of h.
func covered(h Header) Header {
	h.Label, h.SeqID, h.Kept, h.Token.MAC = "", 0, Kept{}, nil
	normal(&h)
	return h
}

// decodeMACInput is the inverse of macInput: that there is one, and that it leaves
// no byte over, shows that no two headers have the same encoding.
func decodeMACInput(t *testing.T, b []byte) (h Header) {
	text := func() string {
		n := binary.BigEndian.Uint32(b)
		s := string(b[4 : 4+n])
		b = b[4+n:]
		return s
	}
	number := func() uint64 {
		n := binary.BigEndian.Uint64(b)
		b = b[8:]
		return n
	}
	want := func(s string) {
		if got := text(); got != s {
			t.Fatalf("%q in the MAC's encoding, want %q", got, s)
		}
	}
	want("sealdisk/header/v1")
	h.UUID = text()
	want("aes-xts-plain64")
	h.SectorSize, h.DataOffset, h.DataSize = int(number()), int64(number()), int64(number())
	for range number() {
		h.Requirements = append(h.Requirements, text())
	}
	want("sealdisk-kms")
	h.Token = Token{Provider: text(), KeyID: text(), KeyVersion: text(), WrappedDK: []byte(text()),
		AADScheme: text(), DiskID: text(), Project: text(), Generation: number()}
	want("pbkdf2")
	h.Digest = Digest{Hash: text(), Iterations: int(number()), Salt: []byte(text()), Value: []byte(text())}
	if len(b) != 0 {
		t.Fatalf("%d bytes over", len(b))
	}
	return h
}

func known(err error) bool {
	return errors.Is(err, ErrNotLUKS2) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrUnsupported)
}

// FuzzBinaryHeader reads arbitrary bytes, as they are and with the checksums made right.
func FuzzBinaryHeader(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, fix bool) {
		file := &memFile{bytes.Clone(data[:min(len(data), 1<<17)])}
		if fix && len(file.b) >= 2*copySize {
			for i := range 2 {
				c := file.b[copyOffset(i):]
				clear(c[offCsum:offPadding2])
				copy(c[offCsum:], checksum(c[:binSize], bytes.NewReader(c[binSize:copySize])))
			}
		}
		h, cond, err := Read(file)
		if err != nil {
			if !known(err) || h != nil || cond.Used != -1 {
				t.Fatalf("%v, %v, %v", h, cond, err)
			}
			return
		}
		if cond.Copies[cond.Used].State != CopyIntact || h.SeqID != cond.Copies[cond.Used].SeqID {
			t.Fatalf("%v of %v", h, cond)
		}
		readAgain(t, h)
		if err := Repair(file); err != nil {
			t.Fatal(err)
		}
		fixed, cond := mustRead(t, file)
		if !cond.Healthy() || !reflect.DeepEqual(fixed, h) {
			t.Fatalf("repaired to %v, %v; was %v", fixed, cond, h)
		}
	})
}

// fuzzArea reads both copies with area as their text.
func fuzzArea(t *testing.T, template *memFile, text []byte) {
	if len(text) > jsonSize {
		return
	}
	h, _, err := Read(withArea(t, template, string(text)))
	if err != nil {
		if !known(err) {
			t.Fatal(err)
		}
		return
	}
	readAgain(t, h)
}

// FuzzJSONArea puts arbitrary text into the JSON area.
func FuzzJSONArea(f *testing.F) {
	template := formatted(f, newHeader())
	for _, s := range seeds(f) {
		if len(s) >= copySize {
			f.Add(bytes.TrimRight(s[binSize:copySize], "\x00"))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) { fuzzArea(t, template, text) })
}

// FuzzToken puts arbitrary text in the place of the token.
func FuzzToken(f *testing.F) {
	template := formatted(f, newHeader())
	area := []byte(areaOf(template))
	from := bytes.Index(area, []byte(`{"type":"sealdisk-kms"`))
	to := from + bytes.IndexByte(area[from:], '}') + 1
	f.Add(area[from:to])
	f.Add([]byte(`{"type":"luks2-keyring","keyslots":[],"key_description":"x"}`))
	f.Fuzz(func(t *testing.T, token []byte) {
		text := append(bytes.Clone(area[:from]), token...)
		fuzzArea(t, template, append(text, area[to:]...))
	})
}
