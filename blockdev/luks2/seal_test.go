package luks2

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// Whoever can write the file can give any header right checksums; without the DK
// it must not pass.
func TestHeaderChangedWithoutTheKeyIsForged(t *testing.T) {
	f := formatted(t, newHeader())
	other := newHeader()
	other.UUID, other.Token.DiskID = "11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-555555555555"
	other.Token.WrappedDK = []byte("the key of another disk")
	otherRoot, err := parseStrict([]byte(areaOf(formatted(t, other))))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string]any){
		"sector size 512":       set("segments.0", "sector_size", 512),
		"fixed size":            set("segments.0", "size", "4096"),
		"requirements removed":  func(r map[string]any) { delete(at(r, "config"), "requirements") },
		"requirements emptied":  set("config.requirements", "mandatory", []string{}),
		"another disk's token":  set("tokens", "0", at(otherRoot, "tokens.0")),
		"older generation":      set("tokens.0", "generation", "0"),
		"newer generation":      set("tokens.0", "generation", "2"),
		"provider":              set("tokens.0", "provider", "evil"),
		"key":                   set("tokens.0", "key_id", "evil"),
		"key version":           set("tokens.0", "key_version", ""),
		"key and version moved": func(r map[string]any) { moveByte(at(r, "tokens.0"), "key_id", "key_version") },
		"wrapped key":           set("tokens.0", "wrapped_dk", "AAAA"),
		"disk id":               set("tokens.0", "disk_id", "evil"),
		"project":               set("tokens.0", "project", "evil"),
		"MAC":                   set("tokens.0", "mac", strings.Repeat("A", 43)+"="),
	} {
		t.Run(name, func(t *testing.T) {
			h, _, err := Read(edited(t, f, change))
			if err != nil {
				t.Fatal(err)
			}
			if err := VolumeKeyCheck(h, testDK(1)); err != nil {
				t.Fatalf("digest: %v", err)
			}
			if err := h.Verify(testDK(1)); !errors.Is(err, ErrForged) {
				t.Fatalf("got %v, want %v", err, ErrForged)
			}
		})
	}
}

// moveByte moves the first character of field b to the end of field a: their
// concatenation stays.
func moveByte(o map[string]any, a, b string) {
	o[a], o[b] = o[a].(string)+o[b].(string)[:1], o[b].(string)[1:]
}

// The MAC covers every field of Header except those named in Seal's comment:
// each one is changed by reflection, so that a new field can't be forgotten.
func TestMACCoversEveryField(t *testing.T) {
	free := map[string]bool{"Label": true, "SeqID": true, "Kept": true}
	covered := 0
	var walk func(path string, v reflect.Value, h *Header)
	walk = func(path string, v reflect.Value, h *Header) {
		for i := range v.NumField() {
			name := path + v.Type().Field(i).Name
			if v.Field(i).Kind() == reflect.Struct && name != "Kept" {
				walk(name+".", v.Field(i), h)
				continue
			}
			saved := reflect.New(v.Field(i).Type()).Elem()
			saved.Set(v.Field(i))
			switch f := v.Field(i); f.Interface().(type) {
			case string:
				f.SetString(f.String() + "x")
			case []byte:
				f.SetBytes(append([]byte{f.Bytes()[0] ^ 1}, f.Bytes()[1:]...))
			case []string:
				f.Set(reflect.ValueOf([]string{"x"}))
			case uint64:
				f.SetUint(f.Uint() + 1)
			case int, int64:
				f.SetInt(f.Int() + 1)
			case Kept:
				f.Set(reflect.ValueOf(Kept{Subsystem: "x"}))
			default:
				t.Fatalf("%s: the test can't change a %s", name, f.Type())
			}
			err := h.Verify(testDK(1))
			switch {
			case free[name]:
				if err != nil {
					t.Errorf("%s changed: %v, but it is not covered", name, err)
				}
			case strings.HasPrefix(name, "Digest."):
				if err == nil {
					t.Errorf("%s changed: accepted", name)
				}
			case !errors.Is(err, ErrForged):
				t.Errorf("%s changed: %v, want %v", name, err, ErrForged)
			}
			covered++
			v.Field(i).Set(saved)
		}
	}
	h := sealed(t, newHeader())
	walk("", reflect.ValueOf(h).Elem(), h)
	if err := h.Verify(testDK(1)); err != nil || covered < 20 {
		t.Fatalf("%d fields, unchanged: %v", covered, err)
	}
}

// The digest is in the MAC too: a salt and value made for the right DK anew are noticed.
func TestDigestMadeAnewIsForged(t *testing.T) {
	h := sealed(t, newHeader())
	again := sealed(t, newHeader())
	h.Digest = again.Digest
	if err := h.Verify(testDK(1)); !errors.Is(err, ErrForged) {
		t.Fatal(err)
	}
	h.Digest.Iterations = maxIterations + 1
	if err := h.Verify(testDK(1)); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("digest without end: %v", err)
	}
}

func TestWrongKeys(t *testing.T) {
	h := sealed(t, newHeader())
	bit := testDK(1)
	bit[63] ^= 0x80
	for name, dk := range map[string][]byte{
		"another": testDK(2), "one bit": bit, "none": nil, "63 bytes": testDK(1)[:63],
		"65 bytes": append(testDK(1), 0), "wrapped key": h.Token.WrappedDK,
	} {
		if err := h.Verify(dk); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: Verify: %v", name, err)
		}
		if err := VolumeKeyCheck(h, dk); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: VolumeKeyCheck: %v", name, err)
		}
		if len(dk) != KeySize {
			if err := newHeader().Seal(dk); err == nil {
				t.Errorf("%s: sealed", name)
			}
		}
	}
}

func TestSealUsesFreshSaltAndKeepsHeaderOnError(t *testing.T) {
	a, b := sealed(t, newHeader()), sealed(t, newHeader())
	if bytes.Equal(a.Digest.Salt, b.Digest.Salt) || bytes.Equal(a.Digest.Value, b.Digest.Value) || bytes.Equal(a.Token.MAC, b.Token.MAC) {
		t.Fatal("two seals of one header are alike")
	}
	if a.Token.AADScheme != AADScheme {
		t.Fatalf("scheme %q", a.Token.AADScheme)
	}
	bad := newHeader()
	bad.Token.Project = "a:b"
	before := *bad
	if err := bad.Seal(testDK(1)); !errors.Is(err, ErrInvalid) || !reflect.DeepEqual(*bad, before) {
		t.Fatalf("%v, %v", err, bad)
	}
}

func TestSealAndWriteRefuseWhatReadWould(t *testing.T) {
	for name, change := range map[string]func(*Header){
		"UUID empty":         func(h *Header) { h.UUID = "" },
		"UUID upper case":    func(h *Header) { h.UUID = strings.ToUpper(h.UUID) },
		"UUID path-like":     func(h *Header) { h.UUID = "../../../../../../../../etc/passwd/x" },
		"label too long":     func(h *Header) { h.Label = strings.Repeat("l", 48) },
		"label with newline": func(h *Header) { h.Label = "a\nb" },
		"sector size":        func(h *Header) { h.SectorSize = 1024 },
		"no data offset":     func(h *Header) { h.DataOffset = 0 },
		"size unaligned":     func(h *Header) { h.DataSize = 512 },
		"size negative":      func(h *Header) { h.DataSize = -4096 },
		"requirement":        func(h *Header) { h.Requirements = []string{"x"} },
		"no provider":        func(h *Header) { h.Token.Provider = "" },
		"no key":             func(h *Header) { h.Token.KeyID = "" },
		"key with a newline": func(h *Header) { h.Token.KeyID = "a\nb" },
		"no disk":            func(h *Header) { h.Token.DiskID = "" },
		"no wrapped key":     func(h *Header) { h.Token.WrappedDK = nil },
		"scheme":             func(h *Header) { h.Token.AADScheme = "sealdisk:v2" },
		"keyslots":           func(h *Header) { h.Kept.Keyslots = []byte(`{"0":{}}`) },
		"flags":              func(h *Header) { h.Kept.Flags = []string{"x"} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeader()
			change(h)
			if err := h.Seal(testDK(1)); !errors.Is(err, ErrInvalid) {
				t.Errorf("Seal: %v", err)
			}
			f := formatted(t, newHeader())
			r := &recorder{memFile: *f}
			h, _ = mustRead(t, f)
			change(h)
			if err := Write(r, h); !errors.Is(err, ErrInvalid) || len(r.ops) != 0 {
				t.Errorf("Write: %v, %d writes", err, len(r.ops))
			}
			if err := Format(r, h); !errors.Is(err, ErrInvalid) || len(r.ops) != 0 {
				t.Errorf("Format: %v, %d writes", err, len(r.ops))
			}
		})
	}
	h, r := newHeader(), &recorder{}
	h.Token.AADScheme = AADScheme
	if err := Format(r, h); !errors.Is(err, ErrInvalid) || len(r.ops) != 0 {
		t.Errorf("not sealed: %v", err)
	}
}

func TestAADBindsProjectAndDisk(t *testing.T) {
	h := newHeader()
	if got, want := h.Token.AAD(), "sealdisk:v1:default:6f0d1c1e-8f0a-4f5e-9b1c-2a7d3e4f5a6b"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	h.Token.Project, h.Token.DiskID = strings.Repeat("p", maxProject), strings.Repeat("d", maxDiskID)
	if n := len(h.Token.AAD()); n > 128 {
		t.Fatalf("longest is %d bytes", n)
	}
}
