package blockdev_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"sealdisk/blockdev"
	bt "sealdisk/blockdev/blockdevtest"
)

func TestOpenFileRefuses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	sparse(t, path("disk"), 65536)
	sparse(t, path("odd"), 65537)
	sparse(t, path("empty"), 0)
	if err := syscall.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		opt        blockdev.FileOptions
		want       error
	}{
		{"missing file", path("none"), blockdev.FileOptions{}, fs.ErrNotExist},
		{"directory", dir, blockdev.FileOptions{}, blockdev.ErrGeometry},
		{"pipe", path("fifo"), blockdev.FileOptions{}, blockdev.ErrGeometry},
		{"character device", "/dev/zero", blockdev.FileOptions{Size: 4096}, blockdev.ErrGeometry},
		{"truncated file", path("disk"), blockdev.FileOptions{Size: 65536 + 4096}, blockdev.ErrGeometry},
		{"truncated below the offset", path("disk"), blockdev.FileOptions{Offset: 1 << 20}, blockdev.ErrGeometry},
		{"offset and size past the end", path("disk"), blockdev.FileOptions{Offset: 4096, Size: 65536}, blockdev.ErrGeometry},
		{"odd size", path("odd"), blockdev.FileOptions{}, blockdev.ErrGeometry},
		{"odd offset", path("disk"), blockdev.FileOptions{Offset: 512, Size: 4096}, blockdev.ErrGeometry},
		{"negative offset", path("disk"), blockdev.FileOptions{Offset: -4096, Size: 4096}, blockdev.ErrGeometry},
		{"negative size", path("disk"), blockdev.FileOptions{Size: -4096}, blockdev.ErrGeometry},
		{"empty file", path("empty"), blockdev.FileOptions{}, blockdev.ErrGeometry},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := blockdev.OpenFile(c.path, c.opt)
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if err == nil {
				f.Close()
			}
		})
	}
}

// TestFileKeepsToItsPart: what lies before and after the exported part is never
// touched, and the file never grows.
func TestFileKeepsToItsPart(t *testing.T) {
	for name, dir := range fileSystems(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "disk")
			image := bytes.Repeat([]byte{0xee}, 65536)
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			f := openFile(t, path, blockdev.FileOptions{Offset: 8192, Size: 16384, Discard: true})
			check(t, f.WriteAt(bytes.Repeat([]byte{1}, 16384), 0, 0))
			check(t, f.Trim(0, 16384, 0))
			check(t, f.WriteZeroes(1, 16383, blockdev.NoHole))
			check(t, f.WriteAt([]byte{2}, 16383, blockdev.FUA))
			check(t, f.Close())
			clear(image[8192:24576])
			image[8192] = 0
			image[24575] = 2
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, image) {
				t.Fatalf("the file is not as it should be: %d bytes, %v", len(got), err)
			}
		})
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFileReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	sparse(t, path, 65536)
	check(t, os.Chmod(path, 0o400))
	f := openFile(t, path, blockdev.FileOptions{ReadOnly: true, Discard: true})
	for name, err := range map[string]error{
		"WriteAt":     f.WriteAt(make([]byte, 512), 0, 0),
		"Trim":        f.Trim(0, 4096, 0),
		"WriteZeroes": f.WriteZeroes(0, 4096, 0),
	} {
		if !errors.Is(err, blockdev.ErrReadOnly) {
			t.Errorf("%s: %v, want ErrReadOnly", name, err)
		}
	}
	check(t, f.ReadAt(make([]byte, 512), 0))
	check(t, f.Flush())
	check(t, f.Close())
}

// TestFileTruncatedWhileOpen: somebody cuts the file: an error, no crash.
func TestFileTruncatedWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	sparse(t, path, 65536)
	f := openFile(t, path, blockdev.FileOptions{})
	defer f.Close()
	check(t, os.Truncate(path, 10000))
	if err := f.ReadAt(make([]byte, 4096), 8192); !errors.Is(err, blockdev.ErrIO) {
		t.Errorf("read across the new end: %v, want ErrIO", err)
	}
	if err := f.ReadNow(make([]byte, 4096), 8192); !errors.Is(err, blockdev.ErrIO) && !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("ReadNow across the new end: %v", err)
	}
	check(t, f.ReadAt(make([]byte, 4096), 0))
}

// blocks is how many bytes of storage a file holds.
func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	check(t, syscall.Stat(path, &st))
	return st.Blocks * 512
}

// TestFileGivesBack: what Trim and WriteZeroes do to the storage held.
func TestFileGivesBack(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		name string
		opt  blockdev.FileOptions
		zero func(f *blockdev.File) error
		back bool
	}{
		{"trim", blockdev.FileOptions{Discard: true}, func(f *blockdev.File) error { return f.Trim(0, size, 0) }, true},
		{"zeroes", blockdev.FileOptions{Discard: true}, func(f *blockdev.File) error { return f.WriteZeroes(0, size, 0) }, true},
		{"zeroes, no hole", blockdev.FileOptions{Discard: true},
			func(f *blockdev.File) error { return f.WriteZeroes(0, size, blockdev.NoHole) }, false},
		{"trim without discard", blockdev.FileOptions{}, func(f *blockdev.File) error { return f.Trim(0, size, 0) }, false},
		{"zeroes without discard", blockdev.FileOptions{},
			func(f *blockdev.File) error { return f.WriteZeroes(0, size, 0) }, false},
		{"trim, preallocated", blockdev.FileOptions{Discard: true, Preallocate: true},
			func(f *blockdev.File) error { return f.Trim(0, size, 0) }, false},
		{"zeroes, preallocated", blockdev.FileOptions{Discard: true, Preallocate: true},
			func(f *blockdev.File) error { return f.WriteZeroes(0, size, 0) }, false},
	} {
		for fsName, dir := range fileSystems(t) {
			t.Run(c.name+"/"+fsName, func(t *testing.T) {
				path := filepath.Join(dir, "disk")
				sparse(t, path, size)
				f := openFile(t, path, c.opt)
				defer f.Close()
				if c.opt.Preallocate && blocks(t, path) < size {
					t.Errorf("only %d bytes are reserved", blocks(t, path))
				}
				check(t, f.WriteAt(bytes.Repeat([]byte{7}, size), 0, blockdev.FUA))
				check(t, c.zero(f))
				if held := blocks(t, path); (held < size/2) != c.back {
					t.Errorf("%d bytes of %d are held, given back should be %v", held, size, c.back)
				}
			})
		}
	}
}

func TestFilePreallocateNoSpace(t *testing.T) {
	rec := bt.NewRecorder(make([]byte, 65536))
	rec.Space = 20
	if _, err := blockdev.NewFile(rec, blockdev.FileOptions{Preallocate: true}); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("error %v, want ErrNoSpace", err)
	}
	rec = bt.NewRecorder(make([]byte, 65536))
	rec.Faults = &bt.Faults{}
	rec.Faults.Add(bt.Rule{Kinds: bt.OpReserve, Err: syscall.EOPNOTSUPP})
	if _, err := blockdev.NewFile(rec, blockdev.FileOptions{Preallocate: true}); !errors.Is(err, blockdev.ErrNotSupported) {
		t.Errorf("error %v, want ErrNotSupported", err)
	}
}

// TestFileNoSpace: a full storage is told as such, in the middle of a write
// too; the rest goes on, and what a trim gives back can be written.
func TestFileNoSpace(t *testing.T) {
	for _, flags := range []blockdev.Flags{0, blockdev.FUA} {
		t.Run(fmt.Sprintf("flags %#x", flags), func(t *testing.T) {
			rec := bt.NewRecorder(make([]byte, 65536))
			rec.Space = 24 // three blocks of 4096
			f, err := blockdev.NewFile(rec, blockdev.FileOptions{Discard: true})
			check(t, err)
			check(t, f.WriteAt(bytes.Repeat([]byte{1}, 8192), 0, flags))
			if err := f.WriteAt(bytes.Repeat([]byte{2}, 8192), 16384, flags); !errors.Is(err, blockdev.ErrNoSpace) || errors.Is(err, blockdev.ErrSyncFailed) {
				t.Fatalf("write beyond the space: %v, want ErrNoSpace alone", err)
			}
			if err := f.SyncErr(); err != nil {
				t.Fatalf("a full storage is no failed sync: %v", err)
			}
			check(t, f.WriteAt(bytes.Repeat([]byte{3}, 8192), 0, flags)) // allocated already
			p := make([]byte, 8192)
			check(t, f.ReadAt(p, 0))
			if !bytes.Equal(p, bytes.Repeat([]byte{3}, 8192)) {
				t.Error("the write after the full one reads back otherwise")
			}
			check(t, f.Trim(0, 8192, flags))
			check(t, f.WriteAt(bytes.Repeat([]byte{4}, 8192), 16384, flags))
			check(t, f.Flush())
			check(t, f.Close())
		})
	}
}

func TestFileErrors(t *testing.T) {
	for _, c := range []struct {
		errno syscall.Errno
		want  error
	}{
		{syscall.EIO, blockdev.ErrIO}, {syscall.ENOSPC, blockdev.ErrNoSpace}, {syscall.EDQUOT, blockdev.ErrNoSpace},
		{syscall.EFBIG, blockdev.ErrIO}, {syscall.ENOMEM, blockdev.ErrIO},
	} {
		rec := bt.NewRecorder(make([]byte, 65536))
		f, err := blockdev.NewFile(rec, blockdev.FileOptions{Discard: true})
		check(t, err)
		rec.Faults = &bt.Faults{}
		rec.Faults.Add(bt.Rule{Kinds: bt.OpRead | bt.OpWrite | bt.OpPunch | bt.OpZero, Err: c.errno})
		for name, err := range map[string]error{
			"ReadAt":             f.ReadAt(make([]byte, 512), 0),
			"WriteAt":            f.WriteAt(make([]byte, 512), 0, 0),
			"Trim":               f.Trim(0, 512, 0),
			"WriteZeroes":        f.WriteZeroes(0, 512, 0),
			"WriteZeroes NoHole": f.WriteZeroes(0, 512, blockdev.NoHole),
		} {
			if !errors.Is(err, c.want) || !errors.Is(err, c.errno) {
				t.Errorf("%s with %v: %v, want %v and the cause", name, c.errno, err, c.want)
			}
		}
		if f.SyncErr() != nil {
			t.Errorf("%v of other calls counts as a failed sync", c.errno)
		}
	}
}

// TestFileReadNowOnlyWhatIsThere: the storage says that it would wait.
func TestFileReadNow(t *testing.T) {
	rec := bt.NewRecorder(bytes.Repeat([]byte{9}, 65536))
	rec.Faults = &bt.Faults{}
	f, err := blockdev.NewFile(rec, blockdev.FileOptions{})
	check(t, err)
	p := make([]byte, 4096)
	check(t, f.ReadNow(p, 0))
	if !bytes.Equal(p, bytes.Repeat([]byte{9}, 4096)) {
		t.Error("ReadNow gave other bytes")
	}
	rec.MaxIO = 1024 // the rest isn't cached
	if err := f.ReadNow(p, 0); err != blockdev.ErrWouldBlock {
		t.Errorf("ReadNow of what is cached in part: %v, want ErrWouldBlock", err)
	}
	rec.Faults.Add(bt.Rule{Kinds: bt.OpReadNow, Err: syscall.EAGAIN})
	if err := f.ReadNow(p, 0); err != blockdev.ErrWouldBlock {
		t.Errorf("ReadNow of what isn't cached: %v, want ErrWouldBlock", err)
	}
	rec.Faults.Clear()
	rec.Faults.Add(bt.Rule{Kinds: bt.OpReadNow, Err: syscall.EOPNOTSUPP})
	for memory, want := range map[bool]error{false: blockdev.ErrWouldBlock, true: nil} {
		rec.Inf.Memory = memory
		f, err := blockdev.NewFile(rec, blockdev.FileOptions{})
		check(t, err)
		if err := f.ReadNow(p, 0); err != want {
			t.Errorf("ReadNow without RWF_NOWAIT, in memory %v: %v, want %v", memory, err, want)
		}
	}
}

// spy is a storage of 200 MiB that only notes what is punched.
type spy struct {
	*bt.Recorder
	pieces []int64
}

func (s *spy) Info() blockdev.StorageInfo { return blockdev.StorageInfo{Size: 200 << 20, ZeroAlign: 1} }

func (s *spy) Punch(off, length int64) error {
	s.pieces = append(s.pieces, length)
	return nil
}

// TestFilePunchesInPieces: a big trim doesn't hold the inode for long.
func TestFilePunchesInPieces(t *testing.T) {
	s := &spy{Recorder: bt.NewRecorder(make([]byte, 4096))}
	f, err := blockdev.NewFile(s, blockdev.FileOptions{Discard: true})
	check(t, err)
	for name, zero := range map[string]func() error{
		"trim":   func() error { return f.Trim(4096, 199<<20, 0) },
		"zeroes": func() error { return f.WriteZeroes(4096, 199<<20, 0) },
	} {
		s.pieces = nil
		check(t, zero())
		sum := int64(0)
		for _, n := range s.pieces {
			if sum += n; n > 64<<20 {
				t.Errorf("%s: one call punches %d bytes", name, n)
			}
		}
		if sum != 199<<20 {
			t.Errorf("%s: %d bytes punched", name, sum)
		}
	}
}
