package blockdevtest_test

import (
	"bytes"
	"fmt"
	"slices"
	"syscall"
	"testing"

	bt "sealdisk/blockdev/blockdevtest"
)

// outcomes are the first bytes of the two sectors of a recorder of 1024 bytes
// in all outcomes that 300 picks show.
func outcomes(r *bt.Recorder, pos int) []string {
	rng := bt.Rand(1)
	seen := map[string]bool{}
	o := r.Crash(pos)
	for i := range 300 {
		img := [][]byte{o.Oldest(), o.Newest(), o.Pick(rng)}[min(i, 2)]
		seen[fmt.Sprintf("%c%c", img[0], img[512])] = true
	}
	var all []string
	for s := range seen {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// TestRecorderOutcomes spells out which outcomes a power cut has.
func TestRecorderOutcomes(t *testing.T) {
	put := func(b byte, off int64, n int) func(*bt.Recorder) {
		return func(r *bt.Recorder) { r.Pwrite(bytes.Repeat([]byte{b}, n), off) }
	}
	through := func(b byte, off int64, n int) func(*bt.Recorder) {
		return func(r *bt.Recorder) { r.PwriteSync(bytes.Repeat([]byte{b}, n), off) }
	}
	sync := func(r *bt.Recorder) { r.Sync() }
	failedSync := func(r *bt.Recorder) {
		r.Faults = &bt.Faults{}
		r.Faults.Add(bt.Rule{Kinds: bt.OpSync, Err: syscall.EIO})
		r.Sync()
		r.Faults = nil
	}
	syncBeside := func(b byte) func(*bt.Recorder) { // a write of both sectors while the sync is under way
		return func(r *bt.Recorder) {
			gate, done := bt.NewGate(), make(chan error)
			r.Faults = &bt.Faults{}
			r.Faults.Add(bt.Rule{Kinds: bt.OpSync, Gate: gate})
			go func() { done <- r.Sync() }()
			gate.Arrived()
			r.Pwrite(bytes.Repeat([]byte{b}, 1024), 0)
			gate.Open()
			<-done
		}
	}
	for _, c := range []struct {
		name string
		do   []func(*bt.Recorder)
		want []string
	}{
		{"nothing happened", nil, []string{".."}},
		{"a write", []func(*bt.Recorder){put('a', 0, 1024)}, []string{"..", ".a", "a.", "aa"}},
		{"a write, synced", []func(*bt.Recorder){put('a', 0, 1024), sync}, []string{"aa"}},
		{"a write through", []func(*bt.Recorder){through('a', 0, 1024)}, []string{"aa"}},
		{"a write through of one sector", []func(*bt.Recorder){put('a', 0, 1024), through('b', 0, 512)}, []string{"b.", "ba"}},
		{"two writes", []func(*bt.Recorder){put('a', 0, 512), put('b', 0, 512)}, []string{"..", "a.", "b."}},
		{"later first", []func(*bt.Recorder){put('a', 0, 512), put('b', 512, 512)}, []string{"..", ".b", "a.", "ab"}},
		{"synced, then written", []func(*bt.Recorder){put('a', 0, 1024), sync, put('b', 512, 512)}, []string{"aa", "ab"}},
		{"written beside a sync", []func(*bt.Recorder){put('a', 0, 1024), syncBeside('b')}, []string{"aa", "ab", "ba", "bb"}},
		{"punched", []func(*bt.Recorder){func(r *bt.Recorder) { r.Punch(0, 1024) }},
			[]string{"\x00\x00", "\x00.", ".\x00", ".."}},
		{"punched and written through", []func(*bt.Recorder){func(r *bt.Recorder) { r.Punch(0, 512) }, through('a', 512, 512)},
			[]string{"\x00a", ".a"}},
		{"a failed sync, then a good one", []func(*bt.Recorder){put('a', 0, 1024), failedSync, sync}, []string{"..", ".a", "a.", "aa"}},
		{"written again after a failed sync", []func(*bt.Recorder){put('a', 0, 1024), failedSync, put('b', 0, 512), sync},
			[]string{"b.", "ba"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := bt.NewRecorder(bytes.Repeat([]byte{'.'}, 1024))
			for _, do := range c.do {
				do(r)
			}
			if got := outcomes(r, r.Pos()); !slices.Equal(got, c.want) {
				t.Errorf("outcomes %q, want %q", got, c.want)
			}
			if got := outcomes(r, 0); !slices.Equal(got, []string{".."}) {
				t.Errorf("outcomes of a cut before anything happened: %q", got)
			}
		})
	}
}
