package disk

import (
	"testing"

	"sealdisk/pkg/api"
)

var allStates = []State{StateNone, StateCreating, StateAvailable, StateAttaching, StateInUse, StateDetaching, StateDeleting,
	StateExtending, StateError, StateErrorDeleting, StateErrorExtending}

var allEvents = []event{evCreate, evCreated, evCreateFailed, evAbandoned, evAttach, evAttached, evAttachUndone, evDetach, evDetached,
	evDelete, evDeleted, evDeleteFailed, evExtend, evExtended, evExtendedAttached, evExtendFailed, evReset}

// legal is written down a second time on purpose: an edge that somebody adds to the
// table must be added here too.
var legal = map[State]map[event]State{
	"":                {evCreate: "creating"},
	"creating":        {evCreated: "available", evCreateFailed: "error", evAbandoned: ""},
	"available":       {evAttach: "attaching", evDelete: "deleting", evExtend: "extending"},
	"attaching":       {evAttached: "in-use", evAttachUndone: "available", evReset: "available"},
	"in-use":          {evDetach: "detaching", evExtend: "extending", evReset: "available"},
	"detaching":       {evDetached: "available", evReset: "available"},
	"deleting":        {evDeleted: "", evDeleteFailed: "error_deleting"},
	"extending":       {evExtended: "available", evExtendedAttached: "in-use", evExtendFailed: "error_extending"},
	"error":           {evDelete: "deleting"},
	"error_deleting":  {evDelete: "deleting"},
	"error_extending": {evDelete: "deleting"},
}

func TestEveryEdge(t *testing.T) {
	if len(transitions) != len(allStates) {
		t.Fatalf("%d states in the table, %d in the test", len(transitions), len(allStates))
	}
	for _, s := range allStates {
		for _, ev := range allEvents {
			r := &Record{Name: "a", State: s}
			got, err := r.next(ev)
			want, ok := legal[s][ev]
			switch {
			case ok && (err != nil || got != want):
				t.Errorf("%q + %q: got %q, %v, want %q", s, ev, got, err, want)
			case !ok && err == nil:
				t.Errorf("%q + %q leads to %q, want a refusal", s, ev, got)
			case !ok:
				wantClass(t, err, api.ClassConflict)
			}
		}
		for ev := range transitions[s] {
			if _, ok := legal[s][ev]; !ok {
				t.Errorf("the table has %q + %q, which the test does not know", s, ev)
			}
		}
	}
}

// TestOperationsInWrongStates: what the table refuses, the operations refuse, and nothing changes.
func TestOperationsInWrongStates(t *testing.T) {
	type op = func(b *bench, id string) error
	attach := func(b *bench, id string) error {
		_, err := b.Attach(b.t.Context(), project, id, AttachOptions{})
		return err
	}
	detach := func(b *bench, id string) error { return b.Detach(b.t.Context(), project, id) }
	del := func(b *bench, id string) error { _, err := b.Delete(project, id); return err }
	finalize := func(b *bench, id string) error { _, err := b.Finalize(b.t.Context(), project, id); return err }
	ops := map[string]struct {
		run op
		ok  State
	}{"attach": {attach, StateAvailable}, "detach": {detach, StateInUse}, "delete": {del, ""}, "finalize": {finalize, StateAvailable}}
	for _, s := range allStates {
		if s == StateNone {
			continue
		}
		for name, o := range ops {
			if o.ok == s || legal[s][evDelete] != "" && name == "delete" {
				continue
			}
			t.Run(string(s)+" "+name, func(t *testing.T) {
				b := newBench(t)
				d := b.encrypted("a")
				e := b.disks[d.ID]
				r := e.record.Load().clone()
				r.State = s
				e.record.Store(r)
				wantClass(t, o.run(b, d.ID), api.ClassConflict)
				if got := b.show(d.ID).State; got != s {
					t.Fatalf("state is %s now", got)
				}
				e.record.Store(d.Record.clone())
			})
		}
	}
}
