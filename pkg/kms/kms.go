// Package kms is the narrow view of a key management service that sealdisk
// needs: describe a key, make a wrapped data key (DK), unwrap it. One
// sub-package adapts each service; adapters never import each other.
package kms

import (
	"context"
	"errors"
)

// DKSize is the size of a data key in bytes (AES-256-XTS).
const DKSize = 64

// The errors of every Provider, wrapped with what was being done. Only
// ErrThrottled and ErrUnavailable may be retried.
var (
	ErrNotFound        = errors.New("key not found")
	ErrDisabled        = errors.New("key is disabled")
	ErrPendingDeletion = errors.New("key is scheduled for deletion")
	ErrFrozen          = errors.New("key is frozen")
	ErrDenied          = errors.New("use of the key is denied")
	ErrNoAgency        = errors.New("the project has not granted EVS access to KMS")
	// ErrBinding: the wrapped DK was made for another disk, project or key, or is damaged.
	ErrBinding     = errors.New("wrapped key does not belong here")
	ErrThrottled   = errors.New("KMS asks to slow down")
	ErrUnavailable = errors.New("KMS is unreachable")
	// ErrProtocol: the KMS answered what the adapter does not understand (its message is kept, never a key).
	ErrProtocol = errors.New("unexpected answer of the KMS")
)

// State is a key's state with DEW's codes.
type State int

const (
	StatePendingActivation State = 1
	StateEnabled           State = 2
	StateDisabled          State = 3
	StatePendingDeletion   State = 4
	StatePendingImport     State = 5
	StateFrozen            State = 7
)

// Key is what DescribeKey tells.
type Key struct {
	ID, Alias string
	State     State
	Default   bool
	Version   string // current version of the key's material
}

// Wrapped is a data key under a KMS key. It is safe to store beside the data, yet is
// kept out of logs.
type Wrapped struct {
	KeyID, KeyVersion string // resolved id, never an alias
	Ciphertext        []byte
}

// Provider is a KMS seen by one service principal. Calls may be concurrent,
// honour ctx, and do not retry.
type Provider interface {
	// Name is stored in the disk's token, e.g. "embedded".
	Name() string
	// DescribeKey resolves an id or alias in project.
	DescribeKey(ctx context.Context, project, key string) (Key, error)
	// NewWrapped makes a data key of DKSize bytes under key, bound to aad
	// (at most 128 bytes), without returning its plaintext.
	NewWrapped(ctx context.Context, project, key, aad string) (Wrapped, error)
	// Unwrap writes the data key into dst (DKSize bytes, memory that the caller
	// locks and clears) and leaves no copy that it can reach.
	Unwrap(ctx context.Context, project string, w Wrapped, aad string, dst []byte) error
}
