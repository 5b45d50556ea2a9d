package keystore

import (
	"errors"
	"fmt"

	"sealdisk/pkg/kms"
)

var (
	// ErrDefaultKey is returned when a default key is to be disabled.
	ErrDefaultKey = errors.New("a default key cannot be disabled, scheduled for deletion or rotated")
	// ErrNotDisabled is returned when a key that is not disabled is to be enabled.
	ErrNotDisabled = errors.New("the key is not disabled")
	// ErrNotEnabled is returned when a key that is not enabled is to be disabled.
	ErrNotEnabled = errors.New("the key is not enabled")
	// ErrUnusable is returned when a key has no material yet.
	ErrUnusable = errors.New("the key has no material yet")
)

// Op is what is asked of a key.
type Op int

const (
	OpUse     Op = iota // make or unwrap a data key: create and attach a disk
	OpEnable            // becomes kms.StateEnabled
	OpDisable           // becomes kms.StateDisabled
)

// rules is the life of a key: what each operation answers in each state, nil
// where it may go on. Operations lead to:
//
//	enabled ── disable ──► disabled ── enable ──► enabled
//
// and the other states only come and go by operations of their own.
var rules = map[kms.State]map[Op]error{
	kms.StatePendingActivation: {OpUse: ErrUnusable, OpEnable: ErrNotDisabled, OpDisable: ErrNotEnabled},
	kms.StateEnabled:           {OpUse: nil, OpEnable: ErrNotDisabled, OpDisable: nil},
	kms.StateDisabled:          {OpUse: kms.ErrDisabled, OpEnable: nil, OpDisable: ErrNotEnabled},
	kms.StatePendingDeletion:   {OpUse: kms.ErrPendingDeletion, OpEnable: ErrNotDisabled, OpDisable: ErrNotEnabled},
	kms.StatePendingImport:     {OpUse: ErrUnusable, OpEnable: ErrNotDisabled, OpDisable: ErrNotEnabled},
	kms.StateFrozen:            {OpUse: kms.ErrFrozen, OpEnable: ErrNotDisabled, OpDisable: ErrNotEnabled},
}

// Allowed is the one place that decides whether op may be done with a key in
// state s; its errors are kms's and this package's. A default key is never
// disabled, whatever its state.
func Allowed(op Op, s kms.State, isDefault bool) error {
	if isDefault && op == OpDisable {
		return ErrDefaultKey
	}
	answers, ok := rules[s]
	if !ok {
		return fmt.Errorf("%w: a key in the unknown state %d", ErrCorrupt, s)
	}
	return answers[op]
}
