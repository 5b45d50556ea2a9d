package blockdev_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
)

// fileSystems are the directories that files are tested in: on the disk's file
// system and tmpfs, and those of SEALDISK_TEST_DIRS (NAME=DIR, separated by
// commas).
func fileSystems(t testing.TB) map[string]string {
	dirs := map[string]string{"disk": tempDir(t, onDisk(t)), "tmpfs": tempDir(t, "/dev/shm")}
	if more := os.Getenv("SEALDISK_TEST_DIRS"); more != "" {
		for pair := range strings.SplitSeq(more, ",") {
			name, parent, _ := strings.Cut(pair, "=")
			dirs[name] = tempDir(t, parent)
		}
	}
	return dirs
}

// onDisk is a directory for temporary files that is no tmpfs, as /tmp is on many
// systems.
func onDisk(t testing.TB) string {
	t.Helper()
	for _, dir := range []string{os.TempDir(), "/var/tmp"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type != unix.TMPFS_MAGIC {
			return dir
		}
	}
	t.Fatal("neither the temporary directory nor /var/tmp is on a disk: set TMPDIR")
	return ""
}

// tempDir makes a directory in parent that goes with the test.
func tempDir(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "blockdev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// sparse makes a file of size bytes, all hole.
func sparse(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func openFile(t testing.TB, path string, opt blockdev.FileOptions) *blockdev.File {
	t.Helper()
	f, err := blockdev.OpenFile(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fileSuite is the suite over files in dir.
func fileSuite(dir string, opt blockdev.FileOptions) blockdevtest.Conformance {
	n, path := 0, ""
	return blockdevtest.Conformance{
		Open: func(t testing.TB, size int64) blockdev.Device {
			n++
			path = filepath.Join(dir, fmt.Sprintf("disk%d", n))
			sparse(t, path, opt.Offset+size+8192)
			opt.Size = size
			t.Cleanup(func() { os.Remove(path) })
			return openFile(t, path, opt)
		},
		Reopen: func(t testing.TB) blockdev.Device { return openFile(t, path, opt) },
	}
}

// encrypted puts a Crypt over the devices of a suite.
func encrypted(c blockdevtest.Conformance, opt blockdev.CryptOptions) blockdevtest.Conformance {
	open, reopen := c.Open, c.Reopen
	crypt := func(t testing.TB, d blockdev.Device) *blockdev.Crypt {
		x, err := blockdev.NewCrypt(d, blockdevtest.Cipher(5), opt)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	c.Open = func(t testing.TB, size int64) blockdev.Device {
		x := crypt(t, open(t, size))
		if !opt.Holes {
			if err := blockdev.FillHoles(context.Background(), x, nil); err != nil {
				t.Fatal(err)
			}
		}
		return x
	}
	if reopen != nil {
		c.Reopen = func(t testing.TB) blockdev.Device { return crypt(t, reopen(t)) }
	}
	c.TrimZeros = c.TrimZeros && opt.Discard
	c.FastZero = c.FastZero && opt.Holes
	c.FastNoHole = false
	return c
}

func TestConformance(t *testing.T) {
	ram := blockdevtest.Conformance{
		Open:      func(_ testing.TB, size int64) blockdev.Device { return blockdevtest.NewRAM(size, nil) },
		TrimZeros: true, FastZero: true, FastNoHole: true,
	}
	suites := map[string]blockdevtest.Conformance{"RAM": ram}
	for name, dir := range fileSystems(t) {
		zeroRange := name != "tmpfs" // has no FALLOC_FL_ZERO_RANGE
		c := fileSuite(dir, blockdev.FileOptions{Offset: 16384, Discard: true})
		c.TrimZeros, c.FastZero, c.FastNoHole = true, true, zeroRange
		suites["File on "+name] = c

		c = fileSuite(dir, blockdev.FileOptions{Offset: 4096})
		c.FastZero, c.FastNoHole = zeroRange, zeroRange
		suites["File on "+name+" without discard"] = c

		c = fileSuite(dir, blockdev.FileOptions{Discard: true, Preallocate: true})
		c.TrimZeros, c.FastZero, c.FastNoHole = zeroRange, zeroRange, zeroRange
		suites["File on "+name+" preallocated"] = c
	}
	suites["File on a storage that does little at a time"] = recorderSuite(func(r *blockdevtest.Recorder) {
		r.MaxIO = 1000
	}, true)
	suites["File on a storage that can't zero"] = recorderSuite(func(r *blockdevtest.Recorder) {
		r.Faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpPunch | blockdevtest.OpZero, Err: syscall.EOPNOTSUPP})
	}, false)
	suites["File on a storage that can't write through"] = recorderSuite(func(r *blockdevtest.Recorder) {
		r.Faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpWriteSync | blockdevtest.OpReadNow, Err: syscall.EOPNOTSUPP})
	}, true)
	suites["File on a storage that zeroes blocks of 4096"] = recorderSuite(func(r *blockdevtest.Recorder) {
		r.Inf.ZeroAlign = 4096
	}, true)

	lowers := []string{"RAM", "File on a storage that can't zero"}
	for name := range fileSystems(t) {
		lowers = append(lowers, "File on "+name)
	}
	for _, lower := range lowers {
		for _, opt := range cryptVariants() {
			suites[fmt.Sprintf("Crypt %+v over %s", opt, lower)] = encrypted(suites[lower], opt)
		}
	}
	c := suites["Crypt {SectorSize:4096 Holes:true Discard:true} over File on disk"]
	open := c.Open
	c.Open = func(t testing.TB, size int64) blockdev.Device { return blockdev.Serialize(open(t, size)) }
	c.Serialized = true
	suites["Serialize over Crypt over File on disk"] = c
	faulty := ram
	faulty.Open = func(_ testing.TB, size int64) blockdev.Device {
		return blockdevtest.NewFaulty(blockdevtest.NewRAM(size, nil), &blockdevtest.Faults{})
	}
	suites["Faulty without a script"] = faulty

	for name, c := range suites {
		t.Run(name, c.Run)
	}
}

// recorderSuite is the suite over Files on recorders.
func recorderSuite(set func(*blockdevtest.Recorder), zeroes bool) blockdevtest.Conformance {
	opt := blockdev.FileOptions{Offset: 4096, Discard: true}
	var rec *blockdevtest.Recorder
	reopen := func(t testing.TB) blockdev.Device {
		f, err := blockdev.NewFile(rec, opt)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	return blockdevtest.Conformance{
		Open: func(t testing.TB, size int64) blockdev.Device {
			rec = blockdevtest.NewRecorder(make([]byte, size+4096))
			rec.Faults = &blockdevtest.Faults{}
			set(rec)
			return reopen(t)
		},
		Reopen:    reopen,
		TrimZeros: zeroes, FastZero: zeroes, FastNoHole: zeroes,
	}
}
