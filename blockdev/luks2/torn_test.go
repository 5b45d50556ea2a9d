package luks2

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
)

// op is one call that changes the file: a write, or a sync when data is nil.
type op struct {
	off  int64
	data []byte
}

// recorder is a memFile that keeps what was written and when it was synced.
type recorder struct {
	memFile
	ops    []op
	failAt int // the op that fails, counted from 1; half of a failing write lands
}

var errDisk = errors.New("disk failed")

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	r.ops = append(r.ops, op{off, bytes.Clone(p)})
	if len(r.ops) == r.failAt {
		n, _ := r.memFile.WriteAt(p[:len(p)/2], off)
		return n, errDisk
	}
	return r.memFile.WriteAt(p, off)
}

func (r *recorder) Sync() error {
	r.ops = append(r.ops, op{})
	if len(r.ops) == r.failAt {
		return errDisk
	}
	return nil
}

// epochs groups the writes by the syncs between them: what a sync followed is
// durable, the writes of the last group may be lost, torn or kept, each by itself.
func epochs(ops []op) [][]op {
	out := [][]op{nil}
	for _, o := range ops {
		if o.data == nil {
			out = append(out, nil)
		} else {
			out[len(out)-1] = append(out[len(out)-1], o)
		}
	}
	return out
}

// torn gives each content that writing o can leave when power fails: every
// byte as the end of a prefix or the start of a suffix that landed. A position
// where old and new byte are equal gives no new content and is left out.
func torn(before []byte, o op, visit func(state []byte)) {
	start := int(o.off)
	old := bytes.Clone(before[start : start+len(o.data)])
	state := bytes.Clone(before)
	visit(state)
	for k, c := range o.data { // prefixes
		if old[k] != c {
			state[start+k] = c
			visit(state)
		}
	}
	for k := range o.data { // suffixes
		if old[k] != o.data[k] {
			state[start+k] = old[k]
			visit(state)
		}
	}
}

// powerCuts visits what the file can hold when power fails at any moment of ops.
func powerCuts(start []byte, ops []op, visit func(state []byte)) {
	durable := bytes.Clone(start)
	for _, group := range epochs(ops) {
		if len(group) == 1 {
			torn(durable, group[0], visit)
		} else {
			// Several unsynced writes: each absent, half or whole.
			for n := range pow3(len(group)) {
				state := bytes.Clone(durable)
				for i, o := range group {
					part := n / pow3(i) % 3
					copy(state[o.off:], o.data[:len(o.data)*part/2])
				}
				visit(state)
			}
		}
		for _, o := range group {
			copy(durable[o.off:], o.data)
		}
	}
}

func pow3(n int) int {
	p := 1
	for range n {
		p *= 3
	}
	return p
}

// starts are the conditions that a write or repair can begin with.
func starts(t *testing.T) map[string]*memFile {
	out := map[string]*memFile{}
	h := newHeader()
	h.Label = "older"
	older := formatted(t, h)
	h.Label = "old"
	whole := older.clone()
	if err := Write(whole, h); err != nil {
		t.Fatal(err)
	}
	out["both intact"] = whole
	for i := range 2 {
		from := copyOffset(i)
		damaged, stale := whole.clone(), whole.clone()
		damaged.b[from+300]++
		copy(stale.b[from:from+copySize], older.b[from:])
		out[ordinal(i)+" damaged"], out[ordinal(i)+" stale"] = damaged, stale
	}
	return out
}

func TestWriteCutAtAnyByteLeavesOldOrNewHeader(t *testing.T) {
	for name, start := range starts(t) {
		t.Run(name, func(t *testing.T) {
			r := &recorder{memFile: *start.clone()}
			h, _ := mustRead(t, r)
			before, _ := mustRead(t, r)
			h.Label, h.Requirements, h.Token.Generation = "new", nil, 2
			h.Token.WrappedDK = bytes.Repeat([]byte("longer"), 100)
			if err := Write(r, sealed(t, h)); err != nil {
				t.Fatal(err)
			}
			cuts, news := 0, 0
			powerCuts(start.b, r.ops, func(state []byte) {
				cuts++
				got, cond, err := Read(&memFile{state})
				if err != nil {
					t.Fatalf("cut %d: %v (%v)", cuts, err, cond)
				}
				if reflect.DeepEqual(got, h) {
					news++
				} else if !reflect.DeepEqual(got, before) {
					t.Fatalf("cut %d: neither the old nor the new header: %v", cuts, got)
				}
				if cuts%11 != 0 {
					return // repairing is a hash each; a sample shows it
				}
				f := &memFile{bytes.Clone(state)}
				if err := Repair(f); err != nil {
					t.Fatalf("cut %d: Repair: %v", cuts, err)
				}
				fixed, cond := mustRead(t, f)
				if !cond.Healthy() || fixed.Label != got.Label || fixed.SeqID != got.SeqID {
					t.Fatalf("cut %d: repaired to %v of %v, was %v", cuts, cond, fixed, got)
				}
			})
			if news == 0 || news == cuts || cuts < 1000 {
				t.Fatalf("%d cuts, new header in %d: the test does not cut the write", cuts, news)
			}
			assertDurable(t, start.b, r.ops, "new")
		})
	}
}

// assertDurable fails unless what was synced, without the rest, is label in two intact copies.
func assertDurable(t *testing.T, start []byte, ops []op, label string) {
	t.Helper()
	durable := bytes.Clone(start)
	groups := epochs(ops)
	for _, group := range groups[:len(groups)-1] {
		for _, o := range group {
			copy(durable[o.off:], o.data)
		}
	}
	if got, cond := mustRead(t, &memFile{durable}); got.Label != label || !cond.Healthy() {
		t.Fatalf("durable when Write returned: %v, %v", got, cond)
	}
}

func TestRepairCutAtAnyByteLosesNothing(t *testing.T) {
	for name, start := range starts(t) {
		if name == "both intact" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			r := &recorder{memFile: *start.clone()}
			if err := Repair(r); err != nil {
				t.Fatal(err)
			}
			powerCuts(start.b, r.ops, func(state []byte) {
				if got, _ := mustRead(t, &memFile{state}); got.Label != "old" || got.SeqID != 2 {
					t.Fatalf("cut repair left %v", got)
				}
			})
			assertDurable(t, start.b, r.ops, "old")
		})
	}
}

func TestRepairWritesNothingWhenHealthy(t *testing.T) {
	r := &recorder{memFile: *formatted(t, newHeader())}
	if err := Repair(r); err != nil || len(r.ops) != 0 {
		t.Fatalf("%v, %d writes and syncs", err, len(r.ops))
	}
}

func TestFailedWriteIsToldAndCanBeRepeated(t *testing.T) {
	for fail := 1; fail <= 4; fail++ {
		t.Run(fmt.Sprintf("call %d fails", fail), func(t *testing.T) {
			r := &recorder{memFile: *formatted(t, newHeader()), failAt: fail}
			h, _ := mustRead(t, r)
			h.Label = "new"
			if err := Write(r, h); !errors.Is(err, errDisk) || h.SeqID != 1 {
				t.Fatalf("error %v, sequence number %d", err, h.SeqID)
			}
			h, _ = mustRead(t, r)
			h.Label = "again"
			if err := Write(r, h); err != nil {
				t.Fatal(err)
			}
			if got, cond := mustRead(t, r); got.Label != "again" || !cond.Healthy() {
				t.Fatalf("%v, %v", got, cond)
			}
		})
	}
}

// A reused block device: whatever moment power fails at, the header of the
// former disk never comes back once the new one is there.
func TestFormatOverAnOldHeaderNeverBringsItBack(t *testing.T) {
	old := newHeader()
	old.Label = "former"
	start := formatted(t, old)
	for range 5 {
		if err := Write(start, old); err != nil {
			t.Fatal(err)
		}
	}
	start.b = append(start.b, make([]byte, 8<<20)...)
	copy(start.b[0x10000:], start.b[0x4000:0x8000]) // second copy of a larger header
	r := &recorder{memFile: *start.clone()}
	h := newHeader()
	h.Label = "new"
	if err := Format(r, sealed(t, h)); err != nil {
		t.Fatal(err)
	}
	seenNew := false
	powerCuts(start.b, r.ops, func(state []byte) {
		got, _, err := Read(&memFile{state})
		switch {
		case err != nil && !errors.Is(err, ErrNotLUKS2) && !errors.Is(err, ErrDamaged):
			t.Fatal(err)
		case err == nil && got.Label == "new":
			seenNew = true
		case err == nil && seenNew:
			t.Fatal("the former disk's header came back")
		}
	})
	if !seenNew || bytes.Contains(r.b[0x10000:0x14000], magicSecondary) {
		t.Fatal("old second copy is still there, or no new header")
	}
	assertDurable(t, start.b, r.ops, "new")
}
