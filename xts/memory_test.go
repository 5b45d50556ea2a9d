package xts

import (
	"encoding/binary"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"
)

// No call allocates.
func TestNoAllocations(t *testing.T) {
	sched := storage()
	key := randomBytes(random(40), 64)
	if err := Expand(sched, key); err != nil {
		t.Fatal(err)
	}
	c := New(sched)
	src, dst := make([]byte, 16<<10), make([]byte, 16<<10)
	eachTier(t, func(t *testing.T) {
		for _, v := range []struct {
			name string
			call func()
		}{
			{"Expand", func() { _ = Expand(sched, key) }},
			{"Check", func() { _ = Check(sched) }},
			{"Encrypt", func() { c.Encrypt(dst, src, 4096, 512) }},
			{"Decrypt", func() { c.Decrypt(dst, src, 512, 0) }},
			{"Encrypt in place", func() { c.Encrypt(dst, dst, 4096, 0) }},
			{"EncryptUnit", func() { c.EncryptUnit(dst[:101], src[:101], [16]byte{}) }},
			{"DecryptUnit", func() { c.DecryptUnit(dst[:101], src[:101], [16]byte{}) }},
		} {
			if n := testing.AllocsPerRun(100, v.call); n != 0 {
				t.Errorf("%s: %v allocations a call", v.name, n)
			}
		}
	})
}

// The compiler moves nothing to the heap: what it reports are constant strings of
// panics, the Cipher (a pointer, made once), and the lists of tiers.
func TestEscapeAnalysis(t *testing.T) {
	cmd := exec.Command("go", "build", "-gcflags=-m", "-o", os.DevNull, ".")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go build -gcflags=-m: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "does not escape") {
		t.Fatalf("no escape analysis in the compiler's output:\n%s", out)
	}
	allowed := regexp.MustCompile(`^\./((tier|cpu_[a-z0-9]+)\.go:.*|xts\.go:.*(&Cipher\{\.\.\.\}|err\.Error\(\)) escapes to heap|.*: "xts: [^"]*" escapes to heap)$`)
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		heap := strings.Contains(line, "escapes to heap") || strings.Contains(line, "moved to heap")
		if heap && strings.HasPrefix(line, "./") && !allowed.MatchString(line) {
			t.Error(line)
		}
	}
}

// below is a copy of the stack, as peek saw it.
var below [16 << 10]byte

// growStack makes the stack so deep that peek can look at it.
//
//go:noinline
func growStack() {
	var frame [4 * len(below)]byte
	wipe(frame[:])
}

// peek copies what earlier calls left below its caller's frame. It calls
// nothing: that would overwrite it.
//
//go:noinline
func peek() {
	var here uint64
	from := unsafe.Add(unsafe.Pointer(&here), -len(below))
	for i := range below {
		below[i] = *(*byte)(unsafe.Add(from, i))
	}
}

func leftovers(words map[uint32]bool) (n int) {
	for i := 0; i < len(below); i += 4 {
		if words[binary.NativeEndian.Uint32(below[i:])] {
			n++
		}
	}
	return n
}

// After Expand nothing of the key is on the stack that it used; before the stack is
// scrubbed there is (else this test would see nothing).
func TestExpandLeavesNothingOnTheStack(t *testing.T) {
	sched := storage()
	key := randomBytes(random(41), 64)
	if err := Expand(sched, key); err != nil {
		t.Fatal(err)
	}
	words := make(map[uint32]bool)
	add := func(b []byte) {
		for i := 0; i < len(b); i += 4 {
			if w := binary.NativeEndian.Uint32(b[i:]); w != 0 && w != ^uint32(0) {
				words[w] = true
			}
		}
	}
	add(sched[offTweak:])
	for r, k := range view(sched).sliced { // what sliceKey had last
		for b := range k {
			if r > 0 {
				k[b] ^= -(subConst >> b & 1)
			}
		}
		var block [64]byte
		unslice(&block, k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7])
		add(block[:])
	}

	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection may shrink the stack
	growStack()
	expand(view(sched), key[:32], key[32:])
	peek()
	if leftovers(words) == 0 {
		t.Error("expand left nothing: the test looks at the wrong place")
	}
	growStack()
	err := Expand(sched, key)
	peek()
	if err != nil {
		t.Fatal(err)
	}
	if n := leftovers(words); n != 0 {
		t.Errorf("%d words of the schedule are left on the stack", n)
	}
}
