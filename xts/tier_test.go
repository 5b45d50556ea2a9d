package xts

import (
	"errors"
	"slices"
	"testing"
)

func TestTiers(t *testing.T) {
	have := Tiers()
	if !slices.Contains(have, "generic") {
		t.Errorf("Tiers() = %q, without the pure-Go one", have)
	}
	if Tier() != have[0] {
		t.Errorf("Tier() = %q, want the best, %q", Tier(), have[0])
	}
	have[0] = "scribbled"
	if Tiers()[0] == "scribbled" {
		t.Error("the caller can change the list of tiers")
	}
}

func TestForceTier(t *testing.T) {
	t.Cleanup(func() { _ = ForceTier("") })
	for _, name := range Tiers() {
		if err := ForceTier(name); err != nil || Tier() != name {
			t.Errorf("ForceTier(%q) = %v, Tier() = %q", name, err, Tier())
		}
	}
	before := Tier()
	if err := ForceTier("abacus"); !errors.Is(err, ErrTier) {
		t.Errorf("ForceTier of an unknown tier = %v, want ErrTier", err)
	}
	if Tier() != before {
		t.Errorf("a refused ForceTier changed the tier to %q", Tier())
	}
	if err := ForceTier(""); err != nil || Tier() != Tiers()[0] {
		t.Errorf("ForceTier(\"\") = %v, Tier() = %q, want the best", err, Tier())
	}
}
