package luks2

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

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

func newImage(t *testing.T, h *Header) image {
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
	if err := f.Truncate(DataOffset + 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := Format(f, sealed(t, h)); err != nil {
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
	for name, change := range map[string]func(*Header){
		"may have holes": func(*Header) {},
		"finalized":      func(h *Header) { h.Requirements = nil },
		"fixed, 512":     func(h *Header) { h.DataSize, h.SectorSize = 1<<20, 512 },
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
			for _, want := range []string{h.UUID, "Label:         \tscratch", "Epoch:         \t1", Cipher, "0: " + TokenType, "0: pbkdf2", "offset: 16777216 [bytes]"} {
				if !strings.Contains(dump, want) {
					t.Errorf("luksDump lacks %q:\n%s", want, dump)
				}
			}
			if got := strings.Contains(dump, "Requirements:\t"+RequirementHoles); got != (h.Requirements != nil) {
				t.Errorf("requirement shown: %v\n%s", got, dump)
			}
			var ours, theirs any
			if err := json.Unmarshal([]byte(must(t, "luksDump", "--dump-json-metadata", im.path)), &theirs); err != nil {
				t.Fatal(err)
			}
			area, err := encodeArea(h)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(strings.TrimRight(string(area), "\x00")), &ours); err != nil {
				t.Fatal(err)
			}
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
	if !cond.Healthy() || got.Kept.count() != 1 || got.Label != "renamed" || got.Kept.Subsystem != "lab" || !reflect.DeepEqual(got.Kept.DigestKeyslots, []string{"0"}) {
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
	next := new(Header)
	if err := json.Unmarshal(text, next); err != nil {
		t.Fatal(err)
	}
	next.Token.Generation, next.Token.WrappedDK = 2, []byte("wrapped anew")
	if err := Write(im.f, sealed(t, next)); err != nil {
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
		{"token removed", []string{"token", "remove", "--token-id", "0"}, ErrUnsupported},
		{"token added", []string{"token", "add", "--key-description", "x"}, ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHeader()
			h.Requirements = nil
			im := newImage(t, h)
			must(t, append(c.args, im.path)...)
			got, _, err := Read(im.f)
			if !errors.Is(err, c.read) {
				t.Fatalf("Read: %v, want %v", err, c.read)
			}
			if err == nil && !errors.Is(got.Verify(testDK(1)), ErrForged) {
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
			if _, err := im.f.WriteAt([]byte("damage"), copyOffset(i)+5000); err != nil {
				t.Fatal(err)
			}
		}
		damage()
		must(t, "luksDump", im.path)
		h, cond := mustRead(t, im.f)
		if !cond.Healthy() || h.Verify(testDK(1)) != nil {
			t.Fatalf("%s copy mended by cryptsetup: %v", ordinal(i), cond)
		}
		damage()
		if err := Repair(im.f); err != nil {
			t.Fatal(err)
		}
		dump := must(t, "--debug", "luksDump", im.path)
		if strings.Contains(dump, "requires recovery") || strings.Contains(dump, "checksum error") {
			t.Fatalf("%s copy mended by Repair does not please cryptsetup:\n%s", ordinal(i), dump)
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
	"same cipher, 512":      {"--type", "luks2", "-c", Cipher, "-s", "512", "--sector-size", "512"},
	"sector 2048":           {"--type", "luks2", "--sector-size", "2048"},
	"CBC":                   {"--type", "luks2", "-c", "aes-cbc-essiv:sha256", "-s", "256"},
	"AES-128":               {"--type", "luks2", "-c", Cipher, "-s", "256"},
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
			if h, cond, err := Read(f); !errors.Is(err, ErrUnsupported) {
				t.Fatalf("%v, %v (%v)", h, err, cond)
			}
		})
	}
}
