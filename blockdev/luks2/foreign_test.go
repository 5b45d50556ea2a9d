package luks2

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// areaOf is the JSON text of the first copy.
func areaOf(f *memFile) string {
	return string(bytes.TrimRight(f.b[binSize:copySize], "\x00"))
}

// withArea rewrites both copies with text as their JSON area and right
// checksums, as somebody would who can write the file but has no key.
func withArea(t testing.TB, f *memFile, text string) *memFile {
	t.Helper()
	h, _ := mustRead(t, f)
	area := make([]byte, jsonSize)
	copy(area, text)
	out := f.clone()
	for i := range 2 {
		raw, err := encodeCopy(binHeader{seqID: h.SeqID, uuid: h.UUID, label: h.Label}, area, i)
		if err != nil {
			t.Fatal(err)
		}
		copy(out.b[copyOffset(i):], raw)
	}
	return out
}

// edited changes the JSON area as a tree of maps.
func edited(t testing.TB, f *memFile, change func(root map[string]any)) *memFile {
	t.Helper()
	root, err := parseStrict([]byte(areaOf(f)))
	if err != nil {
		t.Fatal(err)
	}
	change(root)
	text, err := marshalPlain(root)
	if err != nil {
		t.Fatal(err)
	}
	return withArea(t, f, string(text))
}

// at walks to the object at path.
func at(root map[string]any, path string) map[string]any {
	for _, name := range strings.Split(path, ".") {
		root = root[name].(map[string]any)
	}
	return root
}

func set(path, field string, v any) func(map[string]any) {
	return func(root map[string]any) { at(root, path)[field] = v }
}

func TestForeignHeadersAreUnsupported(t *testing.T) {
	f := formatted(t, newHeader())
	obj := func(text string) any {
		var v map[string]any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	slot := `{"type":"luks2","key_size":64}`
	for name, change := range map[string]func(map[string]any){
		"cipher_null":              set("segments.0", "encryption", "cipher_null-ecb"),
		"cipher in CBC":            set("segments.0", "encryption", "aes-cbc-essiv:sha256"),
		"cipher with 32-bit tweak": set("segments.0", "encryption", "aes-xts-plain"),
		"sector of 1024":           set("segments.0", "sector_size", 1024),
		"sector of 8192":           set("segments.0", "sector_size", 8192),
		"sector as text":           set("segments.0", "sector_size", "4096"),
		"sector 4096.0":            set("segments.0", "sector_size", json.Number("4096.0")),
		"tweak not 0":              set("segments.0", "iv_tweak", "8"),
		"linear segment":           set("segments.0", "type", "linear"),
		"data in the header":       set("segments.0", "offset", "4096"),
		"data later":               set("segments.0", "offset", "33554432"),
		"offset past 2^63":         set("segments.0", "offset", "18446744073709551615"),
		"offset past 2^64":         set("segments.0", "offset", "99999999999999999999999"),
		"offset as number":         set("segments.0", "offset", DataOffset),
		"offset with zeros":        set("segments.0", "offset", "016777216"),
		"size 0":                   set("segments.0", "size", "0"),
		"size unaligned":           set("segments.0", "size", "4097"),
		"size negative":            set("segments.0", "size", "-4096"),
		"integrity":                set("segments.0", "integrity", map[string]any{"type": "hmac(sha256)"}),
		"segment flags":            set("segments.0", "flags", []string{"backup-final"}),
		"two segments":             func(r map[string]any) { r["segments"].(map[string]any)["1"] = at(r, "segments.0") },
		"no segment":               func(r map[string]any) { r["segments"] = map[string]any{} },
		"segment 1 only":           func(r map[string]any) { r["segments"] = map[string]any{"1": at(r, "segments.0")} },
		"two tokens":               func(r map[string]any) { r["tokens"].(map[string]any)["1"] = at(r, "tokens.0") },
		"no token":                 func(r map[string]any) { r["tokens"] = map[string]any{} },
		"another token":            set("tokens.0", "type", "luks2-keyring"),
		"unknown token field":      set("tokens.0", "extra", ""),
		"field in other case":      set("tokens.0", "Provider", "x"),
		"token field missing":      func(r map[string]any) { delete(at(r, "tokens.0"), "mac") },
		"newer scheme":             set("tokens.0", "aad_scheme", "sealdisk:v2"),
		"MAC of 31 bytes":          set("tokens.0", "mac", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="),
		"base64 without padding":   set("tokens.0", "wrapped_dk", "YQ"),
		"base64 with loose bits":   set("tokens.0", "wrapped_dk", "YR=="),
		"wrapped key empty":        set("tokens.0", "wrapped_dk", ""),
		"wrapped key too long":     set("tokens.0", "wrapped_dk", strings.Repeat("AAAA", 700)),
		"project with a colon":     set("tokens.0", "project", "default:disk"),
		"project too long":         set("tokens.0", "project", strings.Repeat("p", 65)),
		"generation as number":     set("tokens.0", "generation", 1),
		"generation past 2^64":     set("tokens.0", "generation", "18446744073709551616"),
		"digest argon2":            set("digests.0", "type", "argon2id"),
		"digest sha1":              set("digests.0", "hash", "sha1"),
		"digest of 999 iterations": set("digests.0", "iterations", 999),
		"digest without end":       set("digests.0", "iterations", 4294967295),
		"digest of no segment":     set("digests.0", "segments", []string{}),
		"digest salt short":        set("digests.0", "salt", "AAAA"),
		"two digests":              func(r map[string]any) { r["digests"].(map[string]any)["1"] = at(r, "digests.0") },
		"unknown requirement":      set("config.requirements", "mandatory", []string{"online-reencrypt-v2"}),
		"one known, one unknown":   set("config.requirements", "mandatory", []string{RequirementHoles, "x"}),
		"requirement named twice":  set("config.requirements", "mandatory", []string{RequirementHoles, RequirementHoles}),
		"other requirements":       set("config.requirements", "optional", []string{}),
		"requirements not a list":  set("config.requirements", "mandatory", RequirementHoles),
		"unknown flag":             set("config", "flags", []string{"x"}),
		"unknown config":           set("config", "x", "y"),
		"another JSON size":        set("config", "json_size", "28672"),
		"another keyslots size":    set("config", "keyslots_size", "4096"),
		"unknown section":          func(r map[string]any) { r["extra"] = map[string]any{} },
		"no config":                func(r map[string]any) { delete(r, "config") },
		"keyslots a list":          func(r map[string]any) { r["keyslots"] = []any{} },
		"keyslot not a number":     func(r map[string]any) { r["keyslots"] = obj(`{"a":` + slot + `}`) },
		"keyslot 32":               func(r map[string]any) { r["keyslots"] = obj(`{"32":` + slot + `}`) },
		"keyslot 01":               func(r map[string]any) { r["keyslots"] = obj(`{"01":` + slot + `}`) },
		"keyslot without type":     func(r map[string]any) { r["keyslots"] = obj(`{"0":{"key_size":64}}`) },
		"digest of no keyslot":     set("digests.0", "keyslots", []string{"0"}),
		"token of no keyslot":      set("tokens.0", "keyslots", []string{"3"}),
	} {
		t.Run(name, func(t *testing.T) {
			g := edited(t, f, change)
			r := &recorder{memFile: *g}
			h, cond, err := Read(r)
			if !errors.Is(err, ErrUnsupported) || h != nil {
				t.Fatalf("%v, %v", h, err)
			}
			if cond.Copies[0].State != CopyUnsupported || cond.Used != -1 {
				t.Fatalf("condition %v, used %d", cond, cond.Used)
			}
			// Neither may touch what is somebody else's.
			if err := Repair(r); !errors.Is(err, ErrUnsupported) || len(r.ops) != 0 {
				t.Fatalf("Repair: %v, %d writes", err, len(r.ops))
			}
			if err := Write(r, sealed(t, newHeader())); !errors.Is(err, ErrUnsupported) || len(r.ops) != 0 {
				t.Fatalf("Write: %v, %d writes", err, len(r.ops))
			}
		})
	}
}

// Intact checksum, broken JSON: no program writes that, so it is damage.
func TestMalformedAreaIsDamage(t *testing.T) {
	f := formatted(t, newHeader())
	text := areaOf(f)
	for name, bad := range map[string]string{
		"empty":               "",
		"not an object":       "[]",
		"null":                "null",
		"cut":                 text[:len(text)-1],
		"space before":        " " + text,
		"space after":         text + " ",
		"second object":       text + "{}",
		"text after zeros":    text + "\x00x",
		"no zero at the end":  text + strings.Repeat(" ", jsonSize-len(text)),
		"comment":             strings.Replace(text, `"tokens"`, `/* */"tokens"`, 1),
		"single quotes":       strings.Replace(text, `"tokens"`, `'tokens'`, 1),
		"comma at the end":    text[:len(text)-1] + ",}",
		"section twice":       strings.Replace(text, `"keyslots":{},`, `"keyslots":{},"keyslots":{},`, 1),
		"field twice":         strings.Replace(text, `"encryption":`, `"encryption":"aes-xts-plain64","encryption":`, 1),
		"twice by an escape":  strings.Replace(text, `"encryption":`, `"encr\u0079ption":"cipher_null-ecb","encryption":`, 1),
		"not UTF-8":           strings.Replace(text, "default", "def\xffult", 1),
		"not ASCII":           strings.Replace(text, "default", "défault", 1),
		"NUL by an escape":    strings.Replace(text, "default", `default\u0000`, 1),
		"lone surrogate":      strings.Replace(text, "default", `\ud800`, 1),
		"nested without end":  strings.Replace(text, `"keyslots":{}`, `"keyslots":`+strings.Repeat(`{"a":`, 20)+"{}"+strings.Repeat("}", 20), 1),
		"deep beyond bearing": strings.Repeat("[", jsonSize-1),
	} {
		t.Run(name, func(t *testing.T) {
			if bad == text {
				t.Fatal("the case changes nothing")
			}
			g := withArea(t, f, bad)
			if h, _, err := Read(g); !errors.Is(err, ErrDamaged) || errors.Is(err, ErrUnsupported) {
				t.Fatalf("%v, %v", h, err)
			}
			copy(g.b[copySize:], f.b[copySize:]) // the other copy is whole
			if _, cond := mustRead(t, g); cond.Used != 1 {
				t.Fatalf("condition %v", cond)
			}
		})
	}
}

// A newer copy with what sealdisk doesn't know must not be overruled by an
// older one that it knows.
func TestNewerForeignCopyIsNotOverruled(t *testing.T) {
	f := formatted(t, newHeader())
	h, _ := mustRead(t, f)
	foreign := edited(t, f, set("config.requirements", "mandatory", []string{"online-reencrypt-v2"}))
	for i := range 2 {
		mixed := f.clone()
		raw, err := encodeCopy(binHeader{seqID: 2, uuid: h.UUID}, foreign.b[binSize:copySize], i)
		if err != nil {
			t.Fatal(err)
		}
		copy(mixed.b[copyOffset(i):], raw)
		if _, cond, err := Read(mixed); !errors.Is(err, ErrUnsupported) || cond.Copies[1-i].State != CopyStale {
			t.Fatalf("newer %s copy: %v, %v", ordinal(i), err, cond)
		}
	}
}

func TestEqualMeaningInAnotherSpelling(t *testing.T) {
	f := formatted(t, newHeader())
	want, _ := mustRead(t, f)
	text := areaOf(f)
	for name, other := range map[string]string{
		"indented":          strings.ReplaceAll(text, ",", ",\n\t"),
		"escaped":           strings.Replace(text, "aes-xts", `\u0061es-xts`, 1),
		"escaped slashes":   strings.ReplaceAll(text, "/", `\/`),
		"empty requirement": strings.Replace(text, `"mandatory":["sealdisk-holes"]`, `"mandatory":[]`, 1),
	} {
		got, _, err := Read(withArea(t, f, other))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == "empty requirement" {
			got.Requirements = want.Requirements
		}
		if err := got.Verify(testDK(1)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}
