package kms

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetryOnlyWhatMayPass(t *testing.T) {
	tests := []struct {
		name  string
		fails []error // then success
		calls int
		want  error
	}{
		{"success", nil, 1, nil},
		{"throttled", []error{ErrThrottled, ErrThrottled}, 3, nil},
		{"unavailable", []error{fmt.Errorf("asking: %w", ErrUnavailable)}, 2, nil},
		{"unavailable, then denied", []error{ErrUnavailable, ErrDenied}, 2, ErrDenied},
		{"denied", []error{ErrDenied}, 1, ErrDenied},
		{"disabled", []error{ErrDisabled}, 1, ErrDisabled},
		{"no agency", []error{ErrNoAgency}, 1, ErrNoAgency},
		{"wrong binding", []error{ErrBinding}, 1, ErrBinding},
		{"not understood", []error{ErrProtocol}, 1, ErrProtocol},
		{"caller gave up", []error{context.Canceled}, 1, context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				err := Retry(t.Context(), func() error {
					calls++
					if calls <= len(tt.fails) {
						return tt.fails[calls-1]
					}
					return nil
				})
				if calls != tt.calls || !errors.Is(err, tt.want) {
					t.Errorf("%d calls and %v, want %d and %v", calls, err, tt.calls, tt.want)
				}
			})
		})
	}
}

func TestRetryEnds(t *testing.T) {
	t.Run("after its time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began, calls := time.Now(), 0
			err := Retry(t.Context(), func() error { calls++; return ErrUnavailable })
			if took := time.Since(began); !errors.Is(err, ErrUnavailable) || took > RetryFor || took < RetryFor/4 {
				t.Errorf("%v after %v", err, took)
			}
			if calls < 4 || calls > 20 {
				t.Errorf("%d calls: pauses must grow", calls)
			}
		})
	})
	t.Run("with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			err := Retry(ctx, func() error { calls++; cancel(); return ErrThrottled })
			if !errors.Is(err, ErrThrottled) || calls != 1 {
				t.Errorf("%d calls and %v", calls, err)
			}
		})
	})
}

func TestHexInto(t *testing.T) {
	tests := []struct {
		name, json string
		room, n    int
		ok         bool
	}{
		{"whole", `"00ff10"`, 3, 3, true},
		{"upper case", `"AB"`, 1, 1, true},
		{"room left", `"ab"`, 3, 1, true},
		{"empty", `""`, 3, 0, true},
		{"too long", `"aabb"`, 1, 0, false},
		{"odd", `"abc"`, 3, 0, false},
		{"not hexadecimal", `"zz"`, 3, 0, false},
		{"number", `12`, 3, 0, false},
		{"null", `null`, 3, 0, false},
		{"escaped", `"\u0061b"`, 3, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := struct {
				K HexInto `json:"k"`
			}{HexInto{Dst: make([]byte, tt.room)}}
			err := json.Unmarshal([]byte(`{"k":`+tt.json+`}`), &v)
			if (err == nil) != tt.ok || v.K.N != tt.n {
				t.Errorf("%d bytes, %v", v.K.N, err)
			}
		})
	}
}

func TestHexIntoNeverPrintsTheKey(t *testing.T) {
	h := HexInto{Dst: []byte("secret key bytes")}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	all := string(b)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		all += fmt.Sprintf(verb, h) + fmt.Sprintf(verb, &h)
	}
	for _, leak := range []string{"secret", "736563", "115 101"} {
		if strings.Contains(all, leak) {
			t.Errorf("%q in %s", leak, all)
		}
	}
	var dst [2]byte
	in := HexInto{Dst: dst[:]}
	if err := in.UnmarshalJSON([]byte(`"5ec2e7!!"`)); err == nil || strings.Contains(err.Error(), "5ec2") {
		t.Errorf("the error shows its input: %v", err)
	}
}

func TestClearReaderLeavesNothing(t *testing.T) {
	br := bufio.NewReaderSize(strings.NewReader(strings.Repeat("key!", 1000)), 64)
	kept, err := br.Peek(64)
	if err != nil {
		t.Fatal(err)
	}
	ClearReader(br)
	if string(kept) != string(make([]byte, 64)) {
		t.Errorf("left in the buffer: %q", kept)
	}
}
