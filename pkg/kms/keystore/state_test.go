package keystore

import (
	"errors"
	"testing"

	"sealdisk/pkg/kms"
)

// The table of design's key life cycle, written down a second time.
func TestEveryStateAndOperation(t *testing.T) {
	tests := []struct {
		name                 string
		state                kms.State
		use, enable, disable error
	}{
		{"pending activation", 1, ErrUnusable, ErrNotDisabled, ErrNotEnabled},
		{"enabled", 2, nil, ErrNotDisabled, nil},
		{"disabled", 3, kms.ErrDisabled, nil, ErrNotEnabled},
		{"pending deletion", 4, kms.ErrPendingDeletion, ErrNotDisabled, ErrNotEnabled},
		{"pending import", 5, ErrUnusable, ErrNotDisabled, ErrNotEnabled},
		{"unknown 6", 6, ErrCorrupt, ErrCorrupt, ErrCorrupt},
		{"frozen", 7, kms.ErrFrozen, ErrNotDisabled, ErrNotEnabled},
		{"unknown 0", 0, ErrCorrupt, ErrCorrupt, ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for op, want := range map[Op]error{OpUse: tt.use, OpEnable: tt.enable, OpDisable: tt.disable} {
				if err := Allowed(op, tt.state, false); !errors.Is(err, want) {
					t.Errorf("operation %d: %v, want %v", op, err, want)
				}
				if op == OpDisable {
					want = ErrDefaultKey
				}
				if err := Allowed(op, tt.state, true); !errors.Is(err, want) {
					t.Errorf("operation %d on a default key: %v, want %v", op, err, want)
				}
			}
		})
	}
}
