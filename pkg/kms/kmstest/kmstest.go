// Package kmstest is the suite of tests that every kms.Provider passes: the
// contract of kms.Provider, and each error of it exactly.
package kmstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

// Service is a KMS under test, seen from its administrator's side. A function
// that this kind of KMS has no equal for is nil, and its cases are left out.
type Service struct {
	Provider kms.Provider
	// Project is one that may use the service; CreateKey and the rest are for it.
	Project string
	// CreateKey makes a key of that name and returns its id.
	CreateKey func(t *testing.T, name string) (id string)
	Disable   func(t *testing.T, id string)
	Enable    func(t *testing.T, id string)
	// SetAgency grants or revokes the agency of Project. It is granted at first.
	SetAgency func(t *testing.T, granted bool)
	// Stop makes the service unreachable.
	Stop func(t *testing.T)
}

const aad = api.AADReserved + "v1:default:1d0e6d5e-1d0c-4f5e-9a55-2f8bb2d3c111"

// all are kms's errors: a test that wants one wants none of the others.
var all = []error{kms.ErrNotFound, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrFrozen, kms.ErrDenied,
	kms.ErrNoAgency, kms.ErrBinding, kms.ErrThrottled, kms.ErrUnavailable, kms.ErrProtocol}

func wantOnly(t *testing.T, err error, want ...error) {
	t.Helper()
	if !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
		t.Errorf("error %v, want %v", err, want)
	}
	for _, e := range all {
		if errors.Is(err, e) && !slices.Contains(want, e) {
			t.Errorf("error %v is also %q", err, e)
		}
	}
}

// Suite runs the tests. start makes a service for each of them.
func Suite(t *testing.T, start func(t *testing.T) Service) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, Service)
	}{
		{"name", name},
		{"describe", describe},
		{"round trip", roundTrip},
		{"data keys differ", dataKeysDiffer},
		{"binding", binding},
		{"damage", damage},
		{"not found", notFound},
		{"disabled", disabled},
		{"agency", agency},
		{"unreachable", unreachable},
		{"context", contexts},
		{"destination", destination},
		{"concurrent", concurrent},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, start(t)) })
	}
}

func wrap(t *testing.T, s Service, key string) kms.Wrapped {
	t.Helper()
	w, err := s.Provider.NewWrapped(t.Context(), s.Project, key, aad)
	if err != nil {
		t.Fatalf("NewWrapped: %v", err)
	}
	return w
}

func unwrap(t *testing.T, s Service, w kms.Wrapped) []byte {
	t.Helper()
	dk := make([]byte, kms.DKSize)
	if err := s.Provider.Unwrap(t.Context(), s.Project, w, aad, dk); err != nil {
		t.Fatalf("Unwrap: %v", err)
	}
	return dk
}

func name(t *testing.T, s Service) {
	if n := s.Provider.Name(); n == "" || strings.ContainsAny(n, " \n\"") {
		t.Errorf("Name %q: it is stored in headers", n)
	}
}

func describe(t *testing.T, s Service) {
	id := s.CreateKey(t, "described")
	for _, ref := range []string{"described", id} {
		k, err := s.Provider.DescribeKey(t.Context(), s.Project, ref)
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
		if k.ID != id || k.Alias != "described" || k.State != kms.StateEnabled || k.Default || k.Version == "" {
			t.Errorf("%s: %+v", ref, k)
		}
	}
}

func roundTrip(t *testing.T, s Service) {
	id := s.CreateKey(t, "k")
	for _, ref := range []string{"k", id} {
		w := wrap(t, s, ref)
		if w.KeyID != id {
			t.Errorf("wrapped under %q, resolved it is %q", w.KeyID, id)
		}
		dk := unwrap(t, s, w)
		if again := unwrap(t, s, w); !bytes.Equal(dk, again) {
			t.Error("unwrapping twice gives two data keys")
		}
		if bytes.Equal(dk[:32], dk[32:]) || bytes.Count(dk, []byte{0}) > 8 {
			t.Error("the data key is not random")
		}
		if bytes.Contains(w.Ciphertext, dk[:16]) {
			t.Error("the wrapped key contains the data key")
		}
	}
}

func dataKeysDiffer(t *testing.T, s Service) {
	id := s.CreateKey(t, "k")
	a, b := wrap(t, s, id), wrap(t, s, id)
	if bytes.Equal(a.Ciphertext, b.Ciphertext) || bytes.Equal(unwrap(t, s, a), unwrap(t, s, b)) {
		t.Error("two data keys are equal")
	}
}

func binding(t *testing.T, s Service) {
	id, other := s.CreateKey(t, "k"), s.CreateKey(t, "other")
	w := wrap(t, s, id)
	underOther := w
	underOther.KeyID = other
	for _, tt := range []struct {
		name string
		w    kms.Wrapped
		aad  string
	}{
		{"another disk", w, strings.Replace(aad, "1d0e", "2d0e", 1)},
		{"another project", w, strings.Replace(aad, "default", "other", 1)},
		{"shorter", w, aad[:len(aad)-1]},
		{"longer", w, aad + "0"},
		{"another key", underOther, aad},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dk := bytes.Repeat([]byte{0xaa}, kms.DKSize)
			wantOnly(t, s.Provider.Unwrap(t.Context(), s.Project, tt.w, tt.aad, dk), kms.ErrBinding)
			if !bytes.Equal(dk, make([]byte, kms.DKSize)) {
				t.Error("something was left in the destination")
			}
		})
	}
}

func damage(t *testing.T, s Service) {
	w := wrap(t, s, s.CreateKey(t, "k"))
	try := func(name string, c []byte) {
		t.Helper()
		dk := make([]byte, kms.DKSize)
		bad := kms.Wrapped{KeyID: w.KeyID, KeyVersion: w.KeyVersion, Ciphertext: c}
		err := s.Provider.Unwrap(t.Context(), s.Project, bad, aad, dk)
		if err == nil {
			t.Errorf("%s: it unwraps", name)
			return
		}
		wantOnly(t, err, kms.ErrBinding)
	}
	for i := range w.Ciphertext {
		c := bytes.Clone(w.Ciphertext)
		c[i] ^= 1
		try("a flipped bit", c)
	}
	try("cut", w.Ciphertext[:len(w.Ciphertext)-1])
	try("longer", append(bytes.Clone(w.Ciphertext), 0))
	try("one byte", []byte{1})
	junk := make([]byte, len(w.Ciphertext))
	if _, err := rand.Read(junk); err != nil {
		t.Fatal(err)
	}
	try("junk", junk)
}

func notFound(t *testing.T, s Service) {
	w := wrap(t, s, s.CreateKey(t, "k"))
	for _, ref := range []string{"missing", "6b2d2b9c-0000-4000-8000-000000000000", "not a name!", ""} {
		_, err := s.Provider.DescribeKey(t.Context(), s.Project, ref)
		if ref != "" {
			wantOnly(t, err, kms.ErrNotFound)
		} else if err == nil {
			t.Error("a key without a name exists")
		}
	}
	_, err := s.Provider.NewWrapped(t.Context(), s.Project, "missing", aad)
	wantOnly(t, err, kms.ErrNotFound)
	w.KeyID = "6b2d2b9c-0000-4000-8000-000000000000"
	wantOnly(t, s.Provider.Unwrap(t.Context(), s.Project, w, aad, make([]byte, kms.DKSize)), kms.ErrNotFound, kms.ErrBinding)
}

func disabled(t *testing.T, s Service) {
	if s.Disable == nil {
		return
	}
	id := s.CreateKey(t, "k")
	w := wrap(t, s, id)
	before := unwrap(t, s, w)
	s.Disable(t, id)
	_, err := s.Provider.NewWrapped(t.Context(), s.Project, id, aad)
	wantOnly(t, err, kms.ErrDisabled)
	wantOnly(t, s.Provider.Unwrap(t.Context(), s.Project, w, aad, make([]byte, kms.DKSize)), kms.ErrDisabled)
	if k, err := s.Provider.DescribeKey(t.Context(), s.Project, id); err != nil || k.State != kms.StateDisabled {
		t.Errorf("a disabled key is described as %+v, %v", k, err)
	}
	s.Enable(t, id)
	if !bytes.Equal(unwrap(t, s, w), before) {
		t.Error("another data key after enabling")
	}
}

func agency(t *testing.T, s Service) {
	if s.SetAgency == nil {
		return
	}
	id := s.CreateKey(t, "k")
	w := wrap(t, s, id)
	s.SetAgency(t, false)
	_, err := s.Provider.DescribeKey(t.Context(), s.Project, id)
	wantOnly(t, err, kms.ErrNoAgency)
	_, err = s.Provider.NewWrapped(t.Context(), s.Project, id, aad)
	wantOnly(t, err, kms.ErrNoAgency)
	wantOnly(t, s.Provider.Unwrap(t.Context(), s.Project, w, aad, make([]byte, kms.DKSize)), kms.ErrNoAgency)
	_, err = s.Provider.DescribeKey(t.Context(), "another-project", id)
	wantOnly(t, err, kms.ErrNoAgency)
	s.SetAgency(t, true)
	unwrap(t, s, w)
}

func unreachable(t *testing.T, s Service) {
	id := s.CreateKey(t, "k")
	w := wrap(t, s, id)
	s.Stop(t)
	_, err := s.Provider.DescribeKey(t.Context(), s.Project, id)
	wantOnly(t, err, kms.ErrUnavailable)
	_, err = s.Provider.NewWrapped(t.Context(), s.Project, id, aad)
	wantOnly(t, err, kms.ErrUnavailable)
	wantOnly(t, s.Provider.Unwrap(t.Context(), s.Project, w, aad, make([]byte, kms.DKSize)), kms.ErrUnavailable)
}

func contexts(t *testing.T, s Service) {
	id := s.CreateKey(t, "k")
	w := wrap(t, s, id)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Provider.DescribeKey(ctx, s.Project, id)
	wantOnly(t, err, context.Canceled)
	_, err = s.Provider.NewWrapped(ctx, s.Project, id, aad)
	wantOnly(t, err, context.Canceled)
	wantOnly(t, s.Provider.Unwrap(ctx, s.Project, w, aad, make([]byte, kms.DKSize)), context.Canceled)
}

func destination(t *testing.T, s Service) {
	w := wrap(t, s, s.CreateKey(t, "k"))
	for _, size := range []int{0, 32, kms.DKSize - 1, kms.DKSize + 1} {
		if err := s.Provider.Unwrap(t.Context(), s.Project, w, aad, make([]byte, size)); err == nil {
			t.Errorf("a data key fits into %d bytes", size)
		}
	}
	long := api.AADReserved + strings.Repeat("x", api.MaxAAD+1-len(api.AADReserved))
	if _, err := s.Provider.NewWrapped(t.Context(), s.Project, w.KeyID, long); err == nil {
		t.Errorf("additional data of %d bytes were accepted", len(long))
	}
	if w, err := s.Provider.NewWrapped(t.Context(), s.Project, w.KeyID, long[:api.MaxAAD]); err != nil {
		t.Errorf("additional data of %d bytes: %v", api.MaxAAD, err)
	} else if err := s.Provider.Unwrap(t.Context(), s.Project, w, long[:api.MaxAAD], make([]byte, kms.DKSize)); err != nil {
		t.Errorf("additional data of %d bytes: %v", api.MaxAAD, err)
	}
}

func concurrent(t *testing.T, s Service) {
	id := s.CreateKey(t, "k")
	w := wrap(t, s, id)
	want := unwrap(t, s, w)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 4 {
				dk := make([]byte, kms.DKSize)
				if err := s.Provider.Unwrap(t.Context(), s.Project, w, aad, dk); err != nil || !bytes.Equal(dk, want) {
					t.Errorf("Unwrap: %v, the same data key: %v", err, bytes.Equal(dk, want))
				}
				if _, err := s.Provider.NewWrapped(t.Context(), s.Project, id, aad); err != nil {
					t.Errorf("NewWrapped: %v", err)
				}
				if _, err := s.Provider.DescribeKey(t.Context(), s.Project, id); err != nil {
					t.Errorf("DescribeKey: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
