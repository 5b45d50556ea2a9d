package conformance

import (
	"encoding/json"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// nbdinfo --json: the exact size and every ability that the server has.
func TestNbdinfoJSON(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "64M")
	var info struct {
		Protocol   string `json:"protocol"`
		Structured bool   `json:"structured"`
		Exports    []map[string]any
	}
	out := testbed.Succeed(t, "nbdinfo", "--json", uri)
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if info.Protocol != "newstyle-fixed" || !info.Structured || len(info.Exports) != 1 {
		t.Fatalf("protocol %q, structured %v, %d exports", info.Protocol, info.Structured, len(info.Exports))
	}
	e := info.Exports[0]
	for name, want := range map[string]any{
		"export-size": float64(64 * mib), "is_read_only": false,
		"can_flush": true, "can_fua": true, "can_trim": true, "can_zero": true, "can_fast_zero": true,
		"can_multi_conn": true, "can_cache": true, "can_df": true, "is_rotational": false,
		"block_size_minimum": float64(1), "block_size_preferred": float64(4096), "block_size_maximum": float64(32 * mib),
	} {
		if e[name] != want {
			t.Errorf("%s is %v, want %v", name, e[name], want)
		}
	}
	if contexts, _ := e["contexts"].([]any); len(contexts) != 1 || contexts[0] != "base:allocation" {
		t.Errorf("contexts %v, want base:allocation", e["contexts"])
	}
}

// nbdinfo --list: a disk's own socket shows that disk, the shared one all.
func TestNbdinfoList(t *testing.T) {
	d := testbed.Start(t)
	first := d.Disk("first", "8M")
	d.Disk("second", "16M")
	d.Must("disk", "create", "unattached", "--size", "8M")
	list := func(uri string) string { return testbed.Succeed(t, "nbdinfo", "--list", uri) }
	own := list(first)
	if !strings.Contains(own, "first") || strings.Contains(own, "second") {
		t.Errorf("the socket of the first disk lists:\n%s", own)
	}
	all := list("nbd+unix:///?socket=" + d.Run + "/nbd.sock")
	if !strings.Contains(all, "first") || !strings.Contains(all, "second") || strings.Contains(all, "unattached") {
		t.Errorf("the shared socket lists:\n%s", all)
	}
}

// nbdinfo --map: holes before, data where written, holes after a trim.
func TestNbdinfoMap(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "64M")
	type extent struct {
		Offset, Length int64
		Type           int
	}
	extents := func() (all []extent) {
		out := testbed.Succeed(t, "nbdinfo", "--map", "--json", uri)
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return all
	}
	expect := func(when string, want ...extent) {
		t.Helper()
		got := extents()
		same := len(got) == len(want)
		for i := range got {
			same = same && got[i] == want[i]
		}
		if !same {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	const hole = 3 // NBD_STATE_HOLE | NBD_STATE_ZERO
	expect("a new disk", extent{0, 64 * mib, hole})
	nbdsh(t, uri, "h.pwrite(b'x' * (1<<20), 16<<20); h.flush()")
	expect("1 MiB written", extent{0, 16 * mib, hole}, extent{16 * mib, mib, 0}, extent{17 * mib, 47 * mib, hole})
	nbdsh(t, uri, "h.trim(1<<19, 16<<20)")
	expect("half trimmed", extent{0, 16*mib + mib/2, hole}, extent{16*mib + mib/2, mib / 2, 0}, extent{17 * mib, 47 * mib, hole})
	nbdsh(t, uri, "h.zero(1<<20, 16<<20)")
	expect("zeroed", extent{0, 64 * mib, hole})
}

// Names: the UUID, the name and project/name open the disk; unknown ones do
// not, and look like those that are not attached.
func TestExportNames(t *testing.T) {
	d := testbed.Start(t)
	d.Disk("vol", "8M")
	d.Must("disk", "create", "detached", "--size", "8M")
	shared := "?socket=" + d.Run + "/nbd.sock"
	for _, name := range []string{"vol", "default/vol", d.ID("vol")} {
		if size := strings.TrimSpace(testbed.Succeed(t, "nbdinfo", "--size", "nbd+unix:///"+name+shared)); size != "8388608" {
			t.Errorf("export %q has size %s", name, size)
		}
	}
	said := map[string]string{}
	for _, name := range []string{"nosuch", "detached", "other/vol", "%00", strings.Repeat("n", 4000)} {
		r := testbed.Exec(t, nil, "nbdinfo", "--size", "nbd+unix:///"+name+shared)
		if r.Code == 0 {
			t.Errorf("export %q opens", name)
		}
		said[name] = strings.ReplaceAll(r.Stderr, name, "NAME")
	}
	if said["nosuch"] != said["detached"] {
		t.Errorf("an unknown and a detached export can be told apart:\n%s%s", said["nosuch"], said["detached"])
	}
}
