package disk

import (
	"fmt"

	"sealdisk/pkg/api"
)

// State is a disk's state, named as in EVS.
//
//	          create                          delete
//	 (none) ─────────► creating ──► error ───────────────┐
//	                      │                              │
//	              created ▼          delete              ▼   deleted
//	   ┌──────────── available ──────────────────────► deleting ───────► (gone)
//	   │ attach       ▲  ▲  │ ▲                         │    ▲
//	   ▼       undone │  │  │ └───────────┐      failed ▼    │ delete
//	attaching ────────┘  │  │ extend      │       error_deleting
//	   │                 │  ▼             │                  ▲
//	   │ attached        │ extending ─────┘ extended         │ delete
//	   ▼        detached │  ▲     │ └──────► error_extending ┘
//	in-use ──► detaching ┘  │     │   failed
//	   │                    │     │ extended, attached
//	   └────────────────────┘     ▼
//	       extend               in-use
//
// After a restart nothing is attached: attaching, in-use and detaching are
// reset to available.
type State string

const (
	StateNone           State = "" // before it exists and after it is gone
	StateCreating       State = "creating"
	StateAvailable      State = "available"
	StateAttaching      State = "attaching"
	StateInUse          State = "in-use"
	StateDetaching      State = "detaching"
	StateDeleting       State = "deleting"
	StateExtending      State = "extending"
	StateError          State = "error" // creation failed
	StateErrorDeleting  State = "error_deleting"
	StateErrorExtending State = "error_extending"
)

// event is what moves a disk from one state to the next.
type event string

const (
	evCreate           event = "create"
	evCreated          event = "created"
	evCreateFailed     event = "create failed"
	evAbandoned        event = "creation abandoned" // found half done after a restart
	evAttach           event = "attach"             // finalize takes the disk the same way, unpublished
	evAttached         event = "attached"
	evAttachUndone     event = "attach undone"
	evDetach           event = "detach"
	evDetached         event = "detached"
	evDelete           event = "delete"
	evDeleted          event = "deleted"
	evDeleteFailed     event = "delete failed"
	evExtend           event = "extend"
	evExtended         event = "extended"
	evExtendedAttached event = "extended, attached"
	evExtendFailed     event = "extend failed"
	evReset            event = "reset"
)

// transitions is the only place that says which event is legal in which state.
var transitions = map[State]map[event]State{
	StateNone:      {evCreate: StateCreating},
	StateCreating:  {evCreated: StateAvailable, evCreateFailed: StateError, evAbandoned: StateNone},
	StateAvailable: {evAttach: StateAttaching, evDelete: StateDeleting, evExtend: StateExtending},
	StateAttaching: {evAttached: StateInUse, evAttachUndone: StateAvailable, evReset: StateAvailable},
	StateInUse:     {evDetach: StateDetaching, evExtend: StateExtending, evReset: StateAvailable},
	StateDetaching: {evDetached: StateAvailable, evReset: StateAvailable},
	StateDeleting:  {evDeleted: StateNone, evDeleteFailed: StateErrorDeleting},
	StateExtending: {evExtended: StateAvailable, evExtendedAttached: StateInUse, evExtendFailed: StateErrorExtending},

	StateError:          {evDelete: StateDeleting},
	StateErrorDeleting:  {evDelete: StateDeleting},
	StateErrorExtending: {evDelete: StateDeleting},
}

func (s State) known() bool {
	_, ok := transitions[s]
	return ok && s != StateNone
}

// hasImage: the disk was created wholly and is not being deleted.
func (s State) hasImage() bool {
	switch s {
	case StateCreating, StateError, StateDeleting, StateErrorDeleting:
		return false
	}
	return true
}

// next returns the state after ev, or an error of class conflict.
func (r *Record) next(ev event) (State, error) {
	if to, ok := transitions[r.State][ev]; ok {
		return to, nil
	}
	e := &api.Error{
		Class:   api.ClassConflict,
		Code:    api.CodeBadRequest,
		Message: fmt.Sprintf("disk %s is %s: %s is not possible", r.Name, r.State, ev),
	}
	switch {
	case r.State == StateInUse && ev == evAttach:
		e.Message = fmt.Sprintf("disk %s is attached already", r.Name)
	case r.State == StateInUse && ev == evDelete:
		e.Hint = "detach it first: sealdisk disk detach " + r.Name
	case r.State == StateAvailable && ev == evDetach:
		e.Message = fmt.Sprintf("disk %s is not attached", r.Name)
	case r.State == StateError || r.State == StateErrorDeleting:
		e.Hint = "the only way on is to delete it: sealdisk disk delete " + r.Name
	}
	return StateNone, e
}
