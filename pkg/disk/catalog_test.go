package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealdisk/pkg/api"
)

func testRecord() *Record {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return &Record{
		Format: 1, ID: testKey, Project: project, Name: "a", Created: now, Updated: now, State: StateAvailable,
		Size: 1 << 20, BlockSize: 512, Discard: true, Tags: map[string]string{"k": "v"},
		Encryption: &Encryption{Provider: "fake", KeyID: testKey, MinGeneration: 3, SectorSize: 4096, Holes: true},
		SyncFailed: &SyncFailure{Time: now, Reason: "EIO"},
		Wish:       &Wish{BootID: thisBoot, UID: 1, Since: now},
		Job:        &Job{ID: "j", Type: JobCreate, Status: JobFail, Project: project, DiskID: testKey, Disk: "a", Begin: now, End: now, FailReason: "x"},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	b, err := testRecord().encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.encode()
	if err != nil || !bytes.Equal(b, again) {
		t.Fatalf("%v\n%s\n%s", err, b, again)
	}
}

func TestParseRecordIsStrict(t *testing.T) {
	good, err := testRecord().encode()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for name, text := range map[string]string{
		"empty":                 "",
		"not JSON":              "x",
		"cut":                   string(good[:len(good)/2]),
		"something behind":      string(good) + "{}",
		"unknown field":         edit(`"discard": true`, `"discard": true, "new": 1`),
		"no format":             edit(`"format": 1`, `"format": 0`),
		"newer format":          edit(`"format": 1`, `"format": 2`),
		"no UUID":               edit(`"id": "0d04`, `"id": "../04`),
		"UUID in capitals":      edit(`"id": "0d0466b0-e7`, `"id": "0D0466B0-E7`),
		"bad project":           edit(`"project": "default"`, `"project": "a/b"`),
		"bad name":              edit(`"name": "a"`, `"name": "a/b"`),
		"unknown state":         edit(`"available"`, `"open"`),
		"no state":              edit(`"available"`, `""`),
		"size 0":                edit(`"size": 1048576`, `"size": 0`),
		"odd size":              edit(`"size": 1048576`, `"size": 1048577`),
		"odd block size":        edit(`"block_size": 512`, `"block_size": 513`),
		"odd sector size":       edit(`"sector_size": 4096`, `"sector_size": 8192`),
		"no key":                edit(`"key_id": "`+testKey+`"`, `"key_id": ""`),
		"no generation":         edit(`"min_generation": 3`, `"min_generation": 0`),
		"negative generation":   edit(`"min_generation": 3`, `"min_generation": -1`),
		"job of another disk":   edit(`"disk_id": "0d`, `"disk_id": "1d`),
		"wrong type of a field": edit(`"discard": true`, `"discard": "yes"`),
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := parseRecord([]byte(text)); !errors.Is(err, ErrRecord) {
				t.Fatalf("%+v, %v", r, err)
			}
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	good, err := testRecord().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		out, err := r.encode()
		if err != nil {
			t.Fatalf("parsed but can't be written: %v", err)
		}
		again, err := parseRecord(out)
		if err != nil {
			t.Fatalf("written but can't be parsed: %v\n%s", err, out)
		}
		if second, _ := again.encode(); !bytes.Equal(out, second) {
			t.Fatalf("not stable:\n%s\n%s", out, second)
		}
	})
}

// traced is a catalog that records its changes and syncs.
func traced(t *testing.T) (c *DirCatalog, steps *[]string) {
	c, err := OpenDirCatalog(filepath.Join(t.TempDir(), "catalog"))
	if err != nil {
		t.Fatal(err)
	}
	steps = new([]string)
	c.step = func(s string) { *steps = append(*steps, s) }
	c.sync = func(f *os.File) error {
		*steps = append(*steps, "sync "+filepath.Base(f.Name()))
		return f.Sync()
	}
	return c, steps
}

// TestPutIsDurableInOrder: the new contents are synced before they get the
// name, and the name is synced before Put returns.
func TestPutIsDurableInOrder(t *testing.T) {
	c, steps := traced(t)
	for range 2 {
		*steps = nil
		if err := c.Put(testRecord()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"catalog: write", "sync ." + testKey + ".tmp", "catalog: rename", "sync catalog"}; !slices.Equal(*steps, want) {
			t.Fatalf("steps %q, want %q", *steps, want)
		}
	}
	*steps = nil
	if err := c.Remove(testKey); err != nil {
		t.Fatal(err)
	}
	if want := []string{"catalog: remove", "sync catalog"}; !slices.Equal(*steps, want) {
		t.Fatalf("steps %q, want %q", *steps, want)
	}
	if err := c.Remove(testKey); err != nil {
		t.Fatalf("removing what is not there: %v", err)
	}
}

func TestPutThatCanNotBeSyncedKeepsTheOldRecord(t *testing.T) {
	c, _ := traced(t)
	if err := c.Put(testRecord()); err != nil {
		t.Fatal(err)
	}
	r := testRecord()
	r.Name = "second"
	c.sync = func(*os.File) error { return syscall.EIO }
	if err := c.Put(r); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	records, broken, err := c.Load()
	if err != nil || len(broken) != 0 || len(records) != 1 || records[0].Name != "a" {
		t.Fatalf("%v, %v, %v", records, broken, err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, ".*")); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestCatalogFilesAreForTheOwnerOnly(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	for path, want := range map[string]os.FileMode{
		filepath.Join(b.dir, "catalog"):               0o700,
		filepath.Join(b.dir, "catalog", d.ID+".json"): 0o600,
		filepath.Join(b.dir, "disks"):                 0o700,
		b.imageDir(d.ID):                              0o700,
		b.imagePath(d.ID):                             0o600,
		filepath.Join(b.dir, "lock"):                  0o600,
	} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, st.Mode().Perm(), want)
		}
	}
}

func TestBrokenEntryIsLeftAsideAndTold(t *testing.T) {
	b := newBench(t)
	good, bad := b.encrypted("good"), b.encrypted("bad")
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.dir, "catalog", bad.ID+".json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(b.dir, "catalog", "x.json"), 0o700); err != nil { // can't even be read
		t.Fatal(err)
	}
	b.open(thisBoot)
	if l := b.List(project); len(l) != 1 || l[0].ID != good.ID {
		t.Fatalf("%+v", l)
	}
	_, err := b.Show(project, bad.ID)
	wantClass(t, err, api.ClassCorrupt)
	if b.Broken()[bad.ID] == nil {
		t.Fatal("not told")
	}
	_, err = b.Import(t.Context(), ImportOptions{Project: project, Path: b.imageDir(bad.ID)})
	wantClass(t, err, api.ClassConflict)
}

func TestRecordUnderAnotherIDIsRefused(t *testing.T) {
	c, err := OpenDirCatalog(filepath.Join(t.TempDir(), "catalog"))
	if err != nil {
		t.Fatal(err)
	}
	r := testRecord()
	if err := c.Put(r); err != nil {
		t.Fatal(err)
	}
	other := "1" + testKey[1:]
	if err := os.Rename(c.path(r.ID), c.path(other)); err != nil {
		t.Fatal(err)
	}
	records, broken, err := c.Load()
	if err != nil || len(records) != 0 || broken[other] == nil {
		t.Fatalf("%v, %v, %v", records, broken, err)
	}
}

func TestTwoDaemonsOnOneDirectory(t *testing.T) {
	b := newBench(t)
	_, err := Open(b.config(thisBoot))
	wantClass(t, err, api.ClassConflict)
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.open(thisBoot) // given back
}

func TestJobsDoNotGrowForEver(t *testing.T) {
	var l jobList
	running := &Job{ID: "running", Project: project, Status: JobRunning}
	l.put(running)
	for i := range keptJobs + 10 {
		id, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		l.put(&Job{ID: string(id), Project: project, Status: JobRunning})
		l.put(&Job{ID: string(id), Project: project, Status: JobSuccess})
	}
	if len(l.jobs) != keptJobs+1 {
		t.Fatalf("%d jobs are kept", len(l.jobs))
	}
	if _, ok := l.get(project, "running"); !ok {
		t.Fatal("a running job was forgotten")
	}
}
