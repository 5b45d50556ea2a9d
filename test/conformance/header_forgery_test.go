package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// Headers rewritten by somebody who has the file but not the key, with
// checksums made right: each is refused as corrupt.
func TestForgedHeadersAreRefused(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	d.Must("disk", "create", "other", "--size", "8M")
	image, other := d.Image("vol"), d.Image("other")
	_, otherCopy := copies(t, other)
	otherArea := parseArea(t, otherCopy)
	genuine := image + ".genuine"
	copyFile(t, image, genuine)

	type change func(t *testing.T, bin []byte, area map[string]any)
	set := func(value any, path ...string) change {
		return func(t *testing.T, _ []byte, area map[string]any) {
			in(t, area, path[:len(path)-1]...)[path[len(path)-1]] = value
		}
	}
	for _, c := range []struct {
		name   string
		change change
	}{
		{"cipher_null", set("cipher_null-ecb", "segments", "0", "encryption")},
		{"another cipher", set("aes-cbc-essiv:sha256", "segments", "0", "encryption")},
		{"sector size 512", set(512, "segments", "0", "sector_size")},
		{"another offset", set(fmt.Sprint(16*mib+4096), "segments", "0", "offset")},
		{"another size", set(fmt.Sprint(4*mib), "segments", "0", "size")},
		{"another tweak", set("8", "segments", "0", "iv_tweak")},
		{"requirement dropped", func(t *testing.T, _ []byte, area map[string]any) {
			delete(in(t, area, "config"), "requirements")
		}},
		{"unknown requirement", set(map[string]any{"mandatory": []string{"sealdisk-holes", "other"}}, "config", "requirements")},
		{"another key id", set("00000000-0000-4000-8000-000000000000", "tokens", "0", "key_id")},
		{"another project", set("other", "tokens", "0", "project")},
		{"lower generation", set("0", "tokens", "0", "generation")},
		{"higher generation", set("99", "tokens", "0", "generation")},
		{"another disk's token", func(t *testing.T, _ []byte, area map[string]any) {
			area["tokens"] = otherArea["tokens"]
		}},
		{"another disk's token and digest", func(t *testing.T, _ []byte, area map[string]any) {
			area["tokens"], area["digests"] = otherArea["tokens"], otherArea["digests"]
		}},
		{"another disk's header", func(t *testing.T, bin []byte, area map[string]any) {
			clear(area)
			for k, v := range otherArea {
				area[k] = v
			}
			copy(bin[atUUID:atUUID+40], otherCopy[atUUID:atUUID+40])
		}},
		{"another disk's wrapped key", func(t *testing.T, _ []byte, area map[string]any) {
			in(t, area, "tokens", "0")["wrapped_dk"] = in(t, otherArea, "tokens", "0")["wrapped_dk"]
		}},
		{"another digest", func(t *testing.T, _ []byte, area map[string]any) {
			in(t, area, "digests", "0")["digest"] = in(t, otherArea, "digests", "0")["digest"]
		}},
		{"no token", func(t *testing.T, _ []byte, area map[string]any) { area["tokens"] = map[string]any{} }},
		{"two segments", func(t *testing.T, _ []byte, area map[string]any) {
			in(t, area, "segments")["1"] = in(t, area, "segments", "0")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rewrite(t, image, func(bin []byte, area map[string]any) { c.change(t, bin, area) })
			if first, second := copies(t, image); !intact(first) || !intact(second) {
				t.Fatal("the test's own checksums are wrong")
			}
			t.Log(d.In(t).Refused(10, "disk", "attach", "vol"))
			copyFile(t, genuine, image)
		})
	}
	d.Attach("vol")
}

// The rewriting itself is not what is refused: nothing changed, it attaches.
func TestRewrittenButEqualHeaderAttaches(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	rewrite(t, d.Image("vol"), func([]byte, map[string]any) {})
	d.Attach("vol")
}

// An older header of the same disk, genuine in its time, does not come back:
// here the one from before finalize.
func TestOlderGenerationIsRefused(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	image := d.Image("vol")
	size := headerSize(t, image)
	old := part(t, image, 0, 2*size)
	d.Must("disk", "finalize", "vol", "--yes")
	edit(t, image, 0, 2*size, func(b []byte) { copy(b, old) })
	t.Log(d.Refused(10, "disk", "attach", "vol"))
}

// Nor does one that is older than the catalog knows, and different in nothing
// else.
func TestGenerationBelowTheCatalogIsRefused(t *testing.T) {
	d := testbed.Start(t)
	d.Must("disk", "create", "vol", "--size", "8M")
	record := filepath.Join(d.State, "catalog", d.ID("vol")+".json")
	d.Stop()
	b, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(b), `"min_generation": 1`, `"min_generation": 2`, 1)
	if newer == string(b) {
		t.Fatalf("the catalog's record has no generation of 1: %s", b)
	}
	if err := os.WriteFile(record, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Serve()
	t.Log(d.Refused(10, "disk", "attach", "vol"))
}
