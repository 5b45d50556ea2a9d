package secmem

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

var modes = []struct {
	name string
	opt  Options
	mode Mode
}{
	{"memfd_secret", Options{RequireSecret: true}, ModeSecret},
	{"mlock", Options{ForceLocked: true}, ModeLocked},
}

func init() {
	roles["fill"] = func() error {
		w, err := OpenChild(os.NewFile(3, "pages"), 2*PageSize)
		if err != nil {
			return err
		}
		for i := range w.Bytes() {
			w.Bytes()[i] = pattern(i)
		}
		return w.Close()
	}
}

func pattern(i int) byte { return byte(i*7 + i>>8 + 1) }

func filled(t *testing.T, opt Options) *Region {
	t.Helper()
	r, err := Create(2*PageSize, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Destroy() })
	f, err := r.Descriptor()
	if err != nil {
		t.Fatal(err)
	}
	run(t, child("fill", f))
	return r
}

// The engine's side reads what the child wrote, in pages that nobody can
// write to any more.
func TestChildFillsPages(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			r := filled(t, m.opt)
			if r.Mode() != m.mode {
				t.Fatalf("mode %q, want %q", r.Mode(), m.mode)
			}
			if r.Bytes() != nil {
				t.Error("Bytes before MapReadOnly")
			}
			if err := r.MapReadOnly(); err != nil {
				t.Fatal(err)
			}
			got := r.Bytes()
			if len(got) != 2*PageSize || uintptr(unsafe.Pointer(&got[0]))%uintptr(PageSize) != 0 {
				t.Fatalf("%d bytes at %p", len(got), got)
			}
			for i := range got {
				if got[i] != pattern(i) {
					t.Fatalf("byte %d is %#x, the child wrote %#x", i, got[i], pattern(i))
				}
			}
			lines := mapsLines(t, fmt.Sprintf("%x-", uintptr(unsafe.Pointer(&got[0]))))
			if len(lines) != 1 || !bytes.Contains([]byte(lines[0]), []byte(" r--s ")) {
				t.Errorf("mapping is %q, want one that is shared and read-only", lines)
			}
		})
	}
}

// In ModeSecret no descriptor stays behind through which the pages could be
// reached or changed.
func TestDescriptorClosedAfterMapping(t *testing.T) {
	r := filled(t, Options{RequireSecret: true})
	f, err := r.Descriptor()
	if err != nil {
		t.Fatal(err)
	}
	fd := int(f.Fd())
	if err := r.MapReadOnly(); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil && fs.Type == unix.SECRETMEM_MAGIC {
		t.Error("the descriptor of the secret memory is still open")
	}
	if _, err := r.Descriptor(); !errors.Is(err, ErrDestroyed) {
		t.Errorf("Descriptor after MapReadOnly: %v", err)
	}
}

func TestDescriptorsAreNotInherited(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			r := filled(t, m.opt)
			f, _ := r.Descriptor()
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags %#x, %v: no CLOEXEC", flags, err)
			}
		})
	}
}

func TestDestroyUnmaps(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			r := filled(t, m.opt)
			if err := r.MapReadOnly(); err != nil {
				t.Fatal(err)
			}
			addr := fmt.Sprintf("%x-", uintptr(unsafe.Pointer(&r.Bytes()[0])))
			guard := fmt.Sprintf("%x-", uintptr(r.m.base))
			if len(mapsLines(t, addr)) != 1 {
				t.Fatal("pages are not in /proc/self/maps to begin with")
			}
			for range 2 { // idempotent
				if err := r.Destroy(); err != nil {
					t.Fatal(err)
				}
			}
			if l := append(mapsLines(t, addr), mapsLines(t, guard)...); len(l) != 0 {
				t.Errorf("still mapped: %q", l)
			}
			if r.Bytes() != nil {
				t.Error("Bytes after Destroy")
			}
			if err := r.MapReadOnly(); !errors.Is(err, ErrDestroyed) {
				t.Errorf("MapReadOnly after Destroy: %v", err)
			}
		})
	}
}

// The fallback's memory is zeroed, not just freed: whoever still holds a
// descriptor sees zeros.
func TestDestroyZeroesLockedPages(t *testing.T) {
	for _, published := range []bool{false, true} {
		t.Run(fmt.Sprintf("mapped=%v", published), func(t *testing.T) {
			r := filled(t, Options{ForceLocked: true})
			f, err := r.Descriptor()
			if err != nil {
				t.Fatal(err)
			}
			dup, err := unix.Dup(int(f.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(dup)
			got := make([]byte, 2*PageSize)
			if _, err := unix.Pread(dup, got, 0); err != nil || got[0] != pattern(0) {
				t.Fatalf("before: %v, first byte %#x", err, got[0])
			}
			if published {
				if err := r.MapReadOnly(); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Destroy(); err != nil {
				t.Fatal(err)
			}
			if n, err := unix.Pread(dup, got, 0); err != nil || n != len(got) {
				t.Fatal(n, err)
			}
			if !bytes.Equal(got, make([]byte, len(got))) {
				t.Error("the descriptor still shows key material")
			}
		})
	}
}

func TestSizes(t *testing.T) {
	for _, size := range []int{-PageSize, 0, 1, PageSize - 1, PageSize + 1} {
		if r, err := Create(size, Options{}); !errors.Is(err, ErrSize) {
			t.Errorf("Create(%d): %v, %v", size, r, err)
		}
	}
	r := filled(t, Options{})
	f, _ := r.Descriptor()
	for _, size := range []int{0, 100, 3 * PageSize} {
		if w, err := OpenChild(f, size); !errors.Is(err, ErrSize) {
			t.Errorf("OpenChild(%d) of 2 pages: %v, %v", size, w, err)
		}
	}
	if b, err := Lock(0); !errors.Is(err, ErrSize) {
		t.Errorf("Lock(0): %v, %v", b, err)
	}
}

// A peer that holds the fallback's descriptor can't make reads of it fault.
func TestLockedPagesCannotShrink(t *testing.T) {
	r := filled(t, Options{ForceLocked: true})
	f, _ := r.Descriptor()
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v, want EPERM", err)
	}
}

func TestBuffer(t *testing.T) {
	b, err := Lock(64)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Bytes()) != 64 || !bytes.Equal(b.Bytes(), make([]byte, 64)) {
		t.Fatalf("%d bytes", len(b.Bytes()))
	}
	copy(b.Bytes(), "secret")
	addr := fmt.Sprintf("%x-", uintptr(unsafe.Pointer(&b.m.mem[0])))
	for range 2 {
		if err := b.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
	if l := mapsLines(t, addr); len(l) != 0 {
		t.Errorf("still mapped: %q", l)
	}
	if b.Bytes() != nil {
		t.Error("Bytes after Destroy")
	}
}

func TestProbe(t *testing.T) {
	mode, err := Probe()
	if err != nil || mode != ModeSecret {
		t.Errorf("%q, %v", mode, err)
	}
}
