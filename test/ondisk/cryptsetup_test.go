// Package ondisk holds the LUKS2 header that sealdisk writes against other
// programs: the real cryptsetup, and an implementation of digest and MAC in Python.
package ondisk

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sealdisk/blockdev/luks2"
)

// copySize is the size of one copy of the header, in bytes.
const copySize = 16384

// testDK is a data key for tests: bytes seed, seed+1, …
func testDK(seed byte) []byte {
	dk := make([]byte, luks2.KeySize)
	for i := range dk {
		dk[i] = seed + byte(i)
	}
	return dk
}

// newHeader is a header as a created disk has it, not yet sealed.
func newHeader() *luks2.Header {
	return &luks2.Header{
		UUID: "6f0d1c1e-8f0a-4f5e-9b1c-2a7d3e4f5a6b", Label: "scratch", SectorSize: 4096, DataOffset: luks2.DataOffset,
		Requirements: []string{luks2.RequirementHoles},
		Token: luks2.Token{
			Provider: "embedded", KeyID: "0d0466b0-e727-4d9c-b35d-f84bb474a37f", KeyVersion: "3",
			WrappedDK: []byte("wrapped-data-key-for-tests"), DiskID: "6f0d1c1e-8f0a-4f5e-9b1c-2a7d3e4f5a6b",
			Project: "default", Generation: 1,
		},
	}
}

func sealed(t *testing.T, h *luks2.Header) *luks2.Header {
	t.Helper()
	if err := h.Seal(testDK(1)); err != nil {
		t.Fatal(err)
	}
	return h
}

func mustRead(t *testing.T, f *os.File) (*luks2.Header, luks2.Condition) {
	t.Helper()
	h, c, err := luks2.Read(f)
	if err != nil {
		t.Fatalf("Read: %v (%v)", err, c)
	}
	return h, c
}

// metadata is the JSON of the first copy, as it stands in the file.
func metadata(t *testing.T, f *os.File) (v any) {
	t.Helper()
	area := make([]byte, copySize)
	if _, err := f.ReadAt(area, 0); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(bytes.TrimRight(area[4096:], "\x00"), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// cryptsetup runs the real program and returns its output and exit code.
func cryptsetup(t testing.TB, args ...string) (string, int) {
	t.Helper()
	path, err := exec.LookPath("cryptsetup")
	if err != nil {
		path = "/usr/sbin/cryptsetup" // not in everybody's PATH
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("these tests need cryptsetup: %v", err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

func must(t testing.TB, args ...string) string {
	t.Helper()
	out, code := cryptsetup(t, args...)
	if code != 0 {
		t.Fatalf("cryptsetup %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// image is a disk's file with h in it, and files with the right key, a wrong one and a passphrase.
type image struct {
	path, key, wrong, pass string
	f                      *os.File
}

func newImage(t *testing.T, h *luks2.Header) image {
	t.Helper()
	dir := t.TempDir()
	im := image{path: filepath.Join(dir, "disk.img"), key: filepath.Join(dir, "key"), wrong: filepath.Join(dir, "wrong"), pass: filepath.Join(dir, "pass")}
	for path, data := range map[string][]byte{im.key: testDK(1), im.wrong: testDK(2), im.pass: []byte("rescue me")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(im.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(luks2.DataOffset + 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := luks2.Format(f, sealed(t, h)); err != nil {
		t.Fatal(err)
	}
	im.f = f
	return im
}

func (im image) testKey(t *testing.T, file string) (string, int) {
	return cryptsetup(t, "open", "--test-passphrase", "--key-size", "512", "--volume-key-file", file, im.path)
}

func (im image) addKey(t *testing.T) (string, int) {
	return cryptsetup(t, "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-size", "512", "--volume-key-file", im.key, im.path, im.pass)
}

func TestCryptsetupReadsTheHeader(t *testing.T) {
	for name, change := range map[string]func(*luks2.Header){
		"may have holes": func(*luks2.Header) {},
		"finalized":      func(h *luks2.Header) { h.Requirements = nil },
		"fixed, 512":     func(h *luks2.Header) { h.DataSize, h.SectorSize = 1<<20, 512 },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeader()
			change(h)
			im := newImage(t, h)
			must(t, "isLuks", "--type", "luks2", im.path)
			if uuid := strings.TrimSpace(must(t, "luksUUID", im.path)); uuid != h.UUID {
				t.Errorf("UUID %q", uuid)
			}
			dump := must(t, "luksDump", im.path)
			for _, want := range []string{h.UUID, "Label:         \tscratch", "Epoch:         \t1", luks2.Cipher, "0: " + luks2.TokenType, "0: pbkdf2", "offset: 16777216 [bytes]"} {
				if !strings.Contains(dump, want) {
					t.Errorf("luksDump lacks %q:\n%s", want, dump)
				}
			}
			if got := strings.Contains(dump, "Requirements:\t"+luks2.RequirementHoles); got != (h.Requirements != nil) {
				t.Errorf("requirement shown: %v\n%s", got, dump)
			}
			var theirs any
			if err := json.Unmarshal([]byte(must(t, "luksDump", "--dump-json-metadata", im.path)), &theirs); err != nil {
				t.Fatal(err)
			}
			ours := metadata(t, im.f)
			if !reflect.DeepEqual(ours, theirs) {
				t.Errorf("cryptsetup sees %v, written %v", theirs, ours)
			}
			if out, code := im.testKey(t, im.key); code != 0 {
				t.Errorf("right key: exit %d, %s", code, out)
			}
			if out, code := im.testKey(t, im.wrong); code != 2 {
				t.Errorf("wrong key: exit %d, %s", code, out)
			}
			if _, cond := mustRead(t, im.f); !cond.Healthy() || cond.Copies[0].SeqID != 1 {
				t.Errorf("cryptsetup changed the header by looking: %v", cond)
			}
		})
	}
}

func TestCryptsetupRefusesToChangeOrOpenADiskWithHoles(t *testing.T) {
	im := newImage(t, newHeader())
	before, _ := mustRead(t, im.f)
	for name, args := range map[string][]string{
		"label":        {"config", "--label", "x", im.path},
		"UUID":         {"luksUUID", "-q", "--uuid", "11111111-2222-3333-4444-555555555555", im.path},
		"token remove": {"token", "remove", "--token-id", "0", im.path},
	} {
		if out, code := cryptsetup(t, args...); code == 0 || !strings.Contains(out, "Unmet LUKS2 requirements") {
			t.Errorf("%s: exit %d, %s", name, code, out)
		}
	}
	if out, code := im.addKey(t); code == 0 || !strings.Contains(out, "Unmet LUKS2 requirements") {
		t.Errorf("luksAddKey: exit %d, %s", code, out)
	}
	if after, _ := mustRead(t, im.f); !reflect.DeepEqual(after, before) {
		t.Errorf("header changed: %v", after)
	}
}

// A rescue passphrase added after finalize must survive what sealdisk writes
// later, and sealdisk must go on reading its disk.
func TestCryptsetupRescueKeySurvivesOurWrites(t *testing.T) {
	h := newHeader()
	h.Requirements = nil
	im := newImage(t, h)
	if out, code := im.addKey(t); code != 0 {
		t.Fatalf("luksAddKey: exit %d, %s", code, out)
	}
	must(t, "config", "--label", "renamed", "--subsystem", "lab", im.path)
	got, cond := mustRead(t, im.f)
	if !cond.Healthy() || !bytes.HasPrefix(got.Kept.Keyslots, []byte(`{"0":{`)) || got.Label != "renamed" || got.Kept.Subsystem != "lab" || !reflect.DeepEqual(got.Kept.DigestKeyslots, []string{"0"}) {
		t.Fatalf("read %v, kept %+v, %v", got, got.Kept, cond)
	}
	if err := got.Verify(testDK(1)); err != nil {
		t.Fatal(err)
	}
	slots := keyslots(t, im)
	text, err := json.Marshal(got) // the way to the process that seals, and back
	if err != nil {
		t.Fatal(err)
	}
	next := new(luks2.Header)
	if err := json.Unmarshal(text, next); err != nil {
		t.Fatal(err)
	}
	next.Token.Generation, next.Token.WrappedDK = 2, []byte("wrapped anew")
	if err := luks2.Write(im.f, sealed(t, next)); err != nil {
		t.Fatal(err)
	}
	if after := keyslots(t, im); !reflect.DeepEqual(after, slots) {
		t.Fatalf("keyslots %v, were %v", after, slots)
	}
	must(t, "open", "--test-passphrase", "--key-file", im.pass, im.path)
	if out, code := im.testKey(t, im.key); code != 0 {
		t.Errorf("volume key after a new seal: exit %d, %s", code, out)
	}
	must(t, "luksKillSlot", "-q", "--key-file", im.pass, im.path, "0")
	if got, _ := mustRead(t, im.f); got.Kept.Keyslots != nil || got.Kept.DigestKeyslots != nil || got.Verify(testDK(1)) != nil {
		t.Fatalf("after luksKillSlot: %v, kept %+v", got, got.Kept)
	}
}

func keyslots(t *testing.T, im image) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(must(t, "luksDump", "--dump-json-metadata", im.path)), &m); err != nil {
		t.Fatal(err)
	}
	return []any{m["keyslots"], m["digests"].(map[string]any)["0"].(map[string]any)["keyslots"]}
}

func TestCryptsetupChangesThatWeDoNotAccept(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		read error
	}{
		{"UUID", []string{"luksUUID", "-q", "--uuid", "11111111-2222-3333-4444-555555555555"}, nil},
		{"token removed", []string{"token", "remove", "--token-id", "0"}, luks2.ErrUnsupported},
		{"token added", []string{"token", "add", "--key-description", "x"}, luks2.ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHeader()
			h.Requirements = nil
			im := newImage(t, h)
			must(t, append(c.args, im.path)...)
			got, _, err := luks2.Read(im.f)
			if !errors.Is(err, c.read) {
				t.Fatalf("Read: %v, want %v", err, c.read)
			}
			if err == nil && !errors.Is(got.Verify(testDK(1)), luks2.ErrForged) {
				t.Fatal("Verify accepts it")
			}
		})
	}
}

// cryptsetup and Repair mend each other's damage.
func TestCryptsetupMendsACopyAsRepairDoes(t *testing.T) {
	for i := range 2 {
		im := newImage(t, newHeader())
		damage := func() {
			if _, err := im.f.WriteAt([]byte("damage"), int64(i)*copySize+5000); err != nil {
				t.Fatal(err)
			}
		}
		damage()
		must(t, "luksDump", im.path)
		h, cond := mustRead(t, im.f)
		if !cond.Healthy() || h.Verify(testDK(1)) != nil {
			t.Fatalf("%s copy mended by cryptsetup: %v", [2]string{"first", "second"}[i], cond)
		}
		damage()
		if err := luks2.Repair(im.f); err != nil {
			t.Fatal(err)
		}
		dump := must(t, "--debug", "luksDump", im.path)
		if strings.Contains(dump, "requires recovery") || strings.Contains(dump, "checksum error") {
			t.Fatalf("%s copy mended by Repair does not please cryptsetup:\n%s", [2]string{"first", "second"}[i], dump)
		}
	}
}

// foreign makes headers with cryptsetup, as seeds and as negative cases.
func foreign(t testing.TB, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	path, pass := filepath.Join(dir, "foreign.img"), filepath.Join(dir, "pass")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(20<<20), os.WriteFile(pass, []byte("p"), 0o600)); err != nil {
		t.Fatal(err)
	}
	must(t, append([]string{"luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", pass, path}, args...)...)
	return path
}

var foreignArgs = map[string][]string{
	"default":               {"--type", "luks2"},
	"same cipher, 512":      {"--type", "luks2", "-c", luks2.Cipher, "-s", "512", "--sector-size", "512"},
	"sector 2048":           {"--type", "luks2", "--sector-size", "2048"},
	"CBC":                   {"--type", "luks2", "-c", "aes-cbc-essiv:sha256", "-s", "256"},
	"AES-128":               {"--type", "luks2", "-c", luks2.Cipher, "-s", "256"},
	"larger metadata":       {"--type", "luks2", "--luks2-metadata-size", "64k", "--luks2-keyslots-size", "4m"},
	"smaller keyslots":      {"--type", "luks2", "--luks2-keyslots-size", "1m"},
	"label and subsystem":   {"--type", "luks2", "--label", "l", "--subsystem", "s"},
	"LUKS 1":                {"--type", "luks1"},
	"data at another place": {"--type", "luks2", "--offset", "16384"},
}

func TestCryptsetupMadeHeadersAreUnsupported(t *testing.T) {
	for name, args := range foreignArgs {
		t.Run(name, func(t *testing.T) {
			f, err := os.Open(foreign(t, args...))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if h, cond, err := luks2.Read(f); !errors.Is(err, luks2.ErrUnsupported) {
				t.Fatalf("%v, %v (%v)", h, err, cond)
			}
		})
	}
}
