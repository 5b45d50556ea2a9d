package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

func TestDiskFromCreateToDelete(t *testing.T) {
	s := newStation(t)
	wantIn(t, s.must("disk", "create", "data", "--size", "1M"), "data", "available", "1 MiB", "encrypted", "yes")
	wantIn(t, s.must("disk", "list"), "NAME", "data", "1 MiB", "available", "yes")

	r := s.do("disk", "attach", "data")
	v := s.show("data")
	if want := "nbd+unix:///data?socket=/run/sealdisk/nbd/" + v.ID + ".sock\n"; r.code != 0 || r.out != want {
		t.Fatalf("stdout %q, want the URI alone: %q (exit %d)", r.out, want, r.code)
	}
	wantIn(t, r.err, "nbd-client -unix /run/sealdisk/nbd/"+v.ID+".sock /dev/nbd0 -N data\n")
	if v.Status != "in-use" || !v.Encrypted || v.Metadata[api.MetaEncrypted] != "1" {
		t.Fatalf("%+v", v)
	}
	wantIn(t, s.refused(4, "disk", "attach", "data"), "attached already")
	wantIn(t, s.refused(4, "disk", "delete", "data", "--yes"), "hint: detach it first: sealdisk disk detach data")
	wantIn(t, s.refused(4, "disk", "finalize", "data", "--yes"), "hint: detach it first")
	s.must("disk", "detach", "data")
	wantIn(t, s.refused(4, "disk", "detach", "data"), "not attached")
	s.must("disk", "finalize", v.ID, "--yes")
	if x := s.show("data").Sealdisk; x.Holes || x.Discard || x.Generation != 2 {
		t.Fatalf("%+v", x)
	}
	s.must("disk", "delete", "data", "--yes")
	wantIn(t, s.refused(3, "disk", "show", "data"), "does not exist", "hint: sealdisk disk list")
}

func TestDestructiveVerbsNeedYes(t *testing.T) {
	s := newStation(t)
	s.must("disk", "create", "data", "--size", "1M")
	for _, verb := range []string{"delete", "finalize"} {
		wantIn(t, s.refused(2, "disk", verb, "data"), "hint: repeat the command with --yes")
	}
	if v := s.show("data"); v.Status != "available" || !v.Sealdisk.Holes {
		t.Fatalf("%+v", v)
	}
}

func TestCreateFlags(t *testing.T) {
	s := newStation(t)
	s.must("disk", "create", "a", "--size", "1", "--unencrypted") // GiB
	s.must("disk", "create", "b", "--size", "4096B", "--key", "mykey", "--sector-size", "512", "--block-size", "4096", "--discard", "off", "--preallocate", "--description", "words")
	if v := s.show("a"); v.Encrypted || v.Sealdisk.SizeBytes != 1<<30 || v.Sealdisk.KeyID != "" {
		t.Fatalf("%+v", v)
	}
	x := s.show("b").Sealdisk
	if x.SizeBytes != 4096 || x.SectorSize != 512 || x.BlockSize != 4096 || x.Discard || x.Holes || !x.Preallocated {
		t.Fatalf("%+v", x)
	}
	r := s.do("disk", "create", "c", "--size", "1M", "--attach")
	if r.code != 0 || !strings.HasPrefix(r.out, "nbd+unix:///c?socket=") || strings.Count(r.out, "\n") != 1 {
		t.Fatalf("%+v", r)
	}
	wantIn(t, s.do("disk", "attach", "b").err, "-b 4096")
	for name, args := range map[string][]string{
		"no size":               {"create", "x"},
		"no name":               {"create", "--size", "1M"},
		"empty name":            {"create", "", "--size", "1M"},
		"path":                  {"create", "../x", "--size", "1M"},
		"long name":             {"create", strings.Repeat("x", 65), "--size", "1M"},
		"bad size":              {"create", "x", "--size", "tenG"},
		"size 0":                {"create", "x", "--size", "0"},
		"negative size":         {"create", "x", "--size=-1G"},
		"odd size":              {"create", "x", "--size", "1000B"},
		"huge size":             {"create", "x", "--size", "9999999P"},
		"discard":               {"create", "x", "--size", "1M", "--discard", "maybe"},
		"sector size":           {"create", "x", "--size", "1M", "--sector-size", "1024"},
		"key of an unencrypted": {"create", "x", "--size", "1M", "--unencrypted", "--key", "k"},
		"unknown flag":          {"create", "x", "--size", "1M", "--frobnicate"},
		"too many words":        {"create", "x", "y", "--size", "1M"},
		"unknown verb":          {"fry"},
	} {
		t.Run(name, func(t *testing.T) {
			s.refused(2, append([]string{"disk"}, args...)...)
		})
	}
	wantIn(t, s.refused(4, "disk", "create", "a", "--size", "1M"), "exists already")
}

func TestExitCodesOfKeys(t *testing.T) {
	s := newStation(t)
	s.must("disk", "create", "data", "--size", "1M")
	for _, c := range []struct {
		err  error
		code int
		hint string
	}{
		{kms.ErrNoAgency, 5, "hint: a Security Administrator can grant it: sealdisk agency grant --project default"},
		{kms.ErrDenied, 5, "share"},
		{kms.ErrDisabled, 6, "sealdisk key enable"},
		{kms.ErrPendingDeletion, 6, "cancel-deletion"},
		{kms.ErrFrozen, 6, "renew"},
		{kms.ErrUnavailable, 7, "sealdisk status"},
		{kms.ErrBinding, 10, "backup"},
	} {
		s.keys.Fail(c.err)
		wantIn(t, s.refused(c.code, "disk", "create", "other", "--size", "1M"), c.hint)
		wantIn(t, s.refused(c.code, "disk", "attach", "data"), c.hint)
		s.keys.Fail(nil)
	}
	s.keys.Fail(kms.ErrNotFound)
	s.refused(3, "disk", "create", "other", "--size", "1M", "--key", "nokey")
	s.refused(6, "disk", "attach", "data") // deleted: for ever
	s.keys.Fail(nil)
	if err := os.Truncate(filepath.Join(s.state(), "disks", s.show("data").ID, "disk.img"), 17<<20-1); err != nil {
		t.Fatal(err)
	}
	s.refused(10, "disk", "attach", "data")
}

func TestDaemonUnreachable(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"status"}, {"disk", "list"}, {"disk", "attach", "x"}, {"disk", "create", "x", "--size", "1M"}} {
		r := runCLI(t, "", append([]string{"--run-dir", dir}, args...)...)
		if r.code != 8 {
			t.Fatalf("%q: exit %d %s", args, r.code, r.err)
		}
		wantIn(t, r.err, "error: ", "hint: start it with: sealdisk serve", filepath.Join(dir, "api.sock"))
	}
}

func TestJSONIsWholeAndAlone(t *testing.T) {
	s := newStation(t)
	if out := s.must("disk", "list", "-o", "json"); strings.TrimSpace(out) != "[]" {
		t.Fatalf("%q", out)
	}
	for _, args := range [][]string{
		{"disk", "create", "data", "--size", "1M"}, {"disk", "list"}, {"disk", "show", "data"}, {"disk", "attach", "data"}, {"status"}, {"version"},
	} {
		if out := s.must(append(args, "--output", "json")...); !json.Valid([]byte(out)) {
			t.Fatalf("%q: %s", args, out)
		}
	}
}

func TestStatus(t *testing.T) {
	s := newStation(t)
	s.must("disk", "create", "data", "--size", "1M")
	wantIn(t, s.must("status"), "v1", "42", "mlock", "1 (1 available)", "not reachable: refused", "a warning")
}

func TestImportAndOfflineFinalize(t *testing.T) {
	s := newStation(t)
	s.must("disk", "create", "data", "--size", "1M")
	image := filepath.Join(s.state(), "disks", s.show("data").ID, "disk.img")
	copied := filepath.Join(s.dir, "copy.img")
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(4, "disk", "import", copied) // it is here
	s.refused(3, "disk", "import", copied+"x")
	raw := filepath.Join(s.dir, "raw.img")
	if err := os.WriteFile(raw, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(10, "disk", "import", raw, "--name", "raw") // a lost header looks like this
	s.must("disk", "import", raw, "--name", "raw", "--unencrypted")
	s.must("disk", "delete", "data", "--yes")

	key := filepath.Join(s.dir, "key")
	if err := os.WriteFile(key, s.keys.LastDK(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(2, "disk", "finalize", copied, "--volume-key-file", key) // asks
	s.refused(2, "disk", "finalize", copied, "--volume-key-file", copied, "--yes")
	s.refused(2, "disk", "finalize", copied, "--volume-key-file", key+"x", "--yes")
	wantIn(t, s.do("disk", "finalize", copied, "--volume-key-file", key, "--yes").err, "is finalized")
	wantIn(t, s.do("disk", "finalize", copied, "--volume-key-file", key, "--yes").err, "no holes already")
	wrong := s.keys.LastDK()
	wrong[0] ^= 1
	r := runCLI(t, string(wrong), "--run-dir", s.run(), "disk", "finalize", copied, "--volume-key-file", "-", "--yes")
	if r.code != 10 {
		t.Fatalf("%+v", r)
	}

	wantIn(t, s.must("disk", "import", copied, "--name", "back"), "back", "available")
	if x := s.show("back").Sealdisk; x.Holes || x.Generation != 2 {
		t.Fatalf("%+v", x)
	}
	s.must("disk", "attach", "back")
}
