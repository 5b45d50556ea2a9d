package nbdserver

import (
	"testing"
	"time"
)

// TestPace: a few slow writes keep the leader from writing, for longer each time;
// now and then it tries again.
func TestPace(t *testing.T) {
	var p pace
	slow := slowWrite + time.Microsecond
	over := func() { p.until.Store(int64(clock()) - 1) } // as if the time had passed
	for i := range 3 {
		if p.took(slow, 0); !p.fast() {
			t.Fatalf("kept away after %d slow writes", i+1)
		}
	}
	if p.took(slow, 0); p.fast() {
		t.Fatal("not kept away after 4 slow writes")
	}
	first := p.hold.Load()
	if over(); !p.fast() {
		t.Fatal("not tried again")
	}
	if p.took(slow, 0); p.fast() {
		t.Error("still slow, and not kept away at once")
	}
	if p.hold.Load() != 2*first {
		t.Errorf("kept away for %d ns, then for %d", first, p.hold.Load())
	}
	for range 20 {
		p.stuck()
	}
	if d := time.Duration(p.hold.Load()); d != maxHold {
		t.Errorf("kept away for %v in the end", d)
	}
	over()
	p.fast()
	for range 1000 {
		p.took(time.Microsecond, 0)
	}
	for range 3 {
		p.took(slow, 0)
	}
	if !p.fast() {
		t.Error("fast writes are not counted")
	}
	for range 100 {
		p.took(slow, 1<<20) // a long write may take longer
	}
	if !p.fast() {
		t.Error("a long write counts like a short one")
	}
}
