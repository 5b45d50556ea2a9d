package keyfetch

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
	"sealdisk/xts"
)

func pages(t *testing.T) *secmem.Region {
	t.Helper()
	r, err := secmem.Create(PagesSize, secmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Destroy() })
	return r
}

// A disk made is a disk that can be attached: same key, and its pages
// encrypt as the DK does.
func TestCreateThenAttach(t *testing.T) {
	f := newFake()
	c := newClient(t, f)
	h := created(t, c)
	if h.Token.Provider != "fake" || h.Token.KeyID != "id-of-finance" || h.Token.Generation != 1 || h.Token.AADScheme != luks2.AADScheme {
		t.Errorf("token %v", h.Token)
	}
	if n := f.called("unwrap"); n != 2 {
		t.Errorf("unwrapped %d times at create, want 2", n)
	}
	if f.aads[string(h.Token.WrappedDK)] != "sealdisk:v1:default:"+diskID {
		t.Errorf("AAD %q", f.aads[string(h.Token.WrappedDK)])
	}
	r := pages(t)
	if err := c.Attach(t.Context(), h, r); err != nil {
		t.Fatal(err)
	}
	dk := f.dks[string(h.Token.WrappedDK)]
	sched := make([]byte, PagesSize+64)
	for len(sched) > PagesSize && !aligned(sched) {
		sched = sched[1:]
	}
	if err := xts.Expand(sched[:PagesSize], dk); err != nil {
		t.Fatal(err)
	}
	in, got, want := bytes.Repeat([]byte("0123456789abcdef"), 256), make([]byte, 4096), make([]byte, 4096)
	xts.New(r.Bytes()).Encrypt(got, in, 4096, 8192)
	xts.New(sched[:PagesSize]).Encrypt(want, in, 4096, 8192)
	if !bytes.Equal(got, want) {
		t.Error("the pages encrypt differently from the DK")
	}
}

// The header given is not changed, and the default key is used when none is named.
func TestCreateDefaultKey(t *testing.T) {
	c := newClient(t, newFake())
	h := plain()
	got, err := c.Create(t.Context(), h, "")
	if err != nil {
		t.Fatal(err)
	}
	if got.Token.KeyID != "id-of-"+api.DefaultKeyAlias {
		t.Errorf("key %q", got.Token.KeyID)
	}
	if diff := difference(h, plain()); diff != "" || h.Token.MAC != nil {
		t.Errorf("the caller's header was changed: %s", diff)
	}
}

func TestCreateRefused(t *testing.T) {
	same := bytes.Repeat([]byte{7}, kms.DKSize)
	for _, tc := range []struct {
		name  string
		setup func(f *fakeKMS)
		want  error
	}{
		{"disabled", func(f *fakeKMS) { f.state = kms.StateDisabled }, kms.ErrDisabled},
		{"pending deletion", func(f *fakeKMS) { f.state = kms.StatePendingDeletion }, kms.ErrPendingDeletion},
		{"frozen", func(f *fakeKMS) { f.state = kms.StateFrozen }, kms.ErrFrozen},
		{"no material", func(f *fakeKMS) { f.state = kms.StatePendingImport }, kms.ErrDisabled},
		{"unknown state", func(f *fakeKMS) { f.state = 99 }, kms.ErrProtocol},
		{"no agency", func(f *fakeKMS) { f.fail["describe"] = kms.ErrNoAgency }, kms.ErrNoAgency},
		{"denied at once", func(f *fakeKMS) { f.fail["new"] = kms.ErrDenied }, kms.ErrDenied},
		{"wrapped under another key", func(f *fakeKMS) { f.keyID = "other" }, kms.ErrProtocol},
		{"equal halves", func(f *fakeKMS) { f.newDK = func() []byte { return same } }, ErrBadKey},
		{"all zero", func(f *fakeKMS) { f.newDK = func() []byte { return make([]byte, kms.DKSize) } }, ErrBadKey},
		{"half zero", func(f *fakeKMS) { f.newDK = func() []byte { return append(same[:32:32], make([]byte, 32)...) } }, ErrBadKey},
		{"too short", func(f *fakeKMS) { f.newDK = func() []byte { return append(same[:32:32], same[:16]...)[:40] } }, ErrBadKey},
		{"second unwrapping differs", func(f *fakeKMS) {
			f.mangle = func(call int, dk []byte) {
				if call == 2 {
					dk[63] ^= 1
				}
			}
		}, ErrBadKey},
		{"second unwrapping fails", func(f *fakeKMS) {
			f.mangle = func(call int, dk []byte) { f.fail["unwrap"] = kms.ErrDenied }
		}, kms.ErrDenied},
		{"bound to another disk", func(f *fakeKMS) {
			f.newDK = nil
			f.fail["unwrap"] = kms.ErrBinding
		}, kms.ErrBinding},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			tc.setup(f)
			h, err := newClient(t, f).Create(t.Context(), plain(), "finance")
			wantIs(t, err, tc.want)
			if h != nil {
				t.Error("a header came with the error")
			}
		})
	}
}

func TestAttachRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		setup func(f *fakeKMS, h *luks2.Header)
		want  error
	}{
		{"another key", func(f *fakeKMS, h *luks2.Header) { f.mangle = func(_ int, dk []byte) { dk[0] ^= 1 } }, luks2.ErrWrongKey},
		{"sector size rewritten", func(f *fakeKMS, h *luks2.Header) { h.SectorSize = 512 }, luks2.ErrForged},
		{"requirement removed", func(f *fakeKMS, h *luks2.Header) { h.Requirements = nil }, luks2.ErrForged},
		{"older generation", func(f *fakeKMS, h *luks2.Header) { h.Token.Generation = 0 }, luks2.ErrForged},
		{"MAC flipped", func(f *fakeKMS, h *luks2.Header) { h.Token.MAC[31] ^= 1 }, luks2.ErrForged},
		{"another disk's token", func(f *fakeKMS, h *luks2.Header) { h.Token.DiskID = strings.Replace(diskID, "0e", "1e", 1) }, kms.ErrBinding},
		{"another project", func(f *fakeKMS, h *luks2.Header) { h.Token.Project = "other" }, kms.ErrBinding},
		{"another provider", func(f *fakeKMS, h *luks2.Header) { h.Token.Provider = "aws" }, kms.ErrBinding},
		{"disabled", func(f *fakeKMS, h *luks2.Header) { f.fail["unwrap"] = kms.ErrDisabled }, kms.ErrDisabled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			c := newClient(t, f)
			h := created(t, c)
			tc.setup(f, h)
			r := pages(t)
			wantIs(t, c.Attach(t.Context(), h, r), tc.want)
			if r.Bytes() != nil {
				t.Error("the pages were published")
			}
			// Nor did the child write to them.
			if err := r.MapReadOnly(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(r.Bytes(), make([]byte, PagesSize)) {
				t.Error("the pages were filled")
			}
		})
	}
}

func TestReseal(t *testing.T) {
	f := newFake()
	c := newClient(t, f)
	old := created(t, c)
	next := *old
	next.Requirements, next.Token.Generation, next.DataSize = nil, 2, 1<<30
	got, err := c.Reseal(t.Context(), old, &next)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Verify(f.dks[string(got.Token.WrappedDK)]); err != nil {
		t.Error(err)
	}
	if err := c.Attach(t.Context(), got, pages(t)); err != nil {
		t.Error(err)
	}
	t.Run("refused", func(t *testing.T) {
		for _, tc := range []struct {
			name string
			edit func(old, next *luks2.Header)
			want error
		}{
			{"old is forged", func(old, next *luks2.Header) { old.Requirements = nil }, luks2.ErrForged},
			{"generation goes back", func(old, next *luks2.Header) { next.Token.Generation = 0 }, luks2.ErrInvalid},
			{"another disk", func(old, next *luks2.Header) { next.UUID = strings.Replace(diskID, "0e", "1e", 1) }, luks2.ErrInvalid},
			{"another sector size", func(old, next *luks2.Header) { next.SectorSize = 512 }, luks2.ErrInvalid},
			{"another wrapped key", func(old, next *luks2.Header) { next.Token.WrappedDK = []byte("x") }, luks2.ErrInvalid},
			{"another project", func(old, next *luks2.Header) { next.Token.Project = "p" }, luks2.ErrInvalid},
		} {
			t.Run(tc.name, func(t *testing.T) {
				o, n := *old, next
				tc.edit(&o, &n)
				_, err := c.Reseal(t.Context(), &o, &n)
				wantIs(t, err, tc.want)
			})
		}
	})
}

// Only throttling and unavailability are tried again.
func TestRetries(t *testing.T) {
	for _, tc := range []struct {
		name  string
		err   error
		times int // it fails
		calls int
		want  error
	}{
		{"throttled twice", kms.ErrThrottled, 2, 4, nil}, // and the second unwrapping
		{"unavailable once", kms.ErrUnavailable, 1, 3, nil},
		{"denied", kms.ErrDenied, 100, 1, kms.ErrDenied},
		{"disabled", kms.ErrDisabled, 100, 1, kms.ErrDisabled},
		{"not understood", kms.ErrProtocol, 100, 1, kms.ErrProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			f.fail["unwrap"], f.failN["unwrap"] = tc.err, tc.times
			_, err := newClient(t, f).Create(t.Context(), plain(), "finance")
			if (err == nil) != (tc.want == nil) || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if n := f.called("unwrap"); n != tc.calls {
				t.Errorf("%d calls, want %d", n, tc.calls)
			}
		})
	}
}

// A KMS that never answers costs the time allowed and no more, and says so.
func TestDeadlines(t *testing.T) {
	f := newFake()
	f.hang["unwrap"] = true
	t.Run("child's", func(t *testing.T) {
		s := &inProcess{t: t, provider: f, opt: ChildOptions{MaxTimeout: 50 * time.Millisecond}}
		t.Cleanup(s.wg.Wait)
		_, err := New(s, Options{Timeout: time.Minute}).Create(t.Context(), plain(), "finance")
		wantIs(t, err, ErrTimeout)
		wantIs(t, err, kms.ErrUnavailable)
	})
	t.Run("engine's", func(t *testing.T) {
		silent := make(chan struct{})
		defer close(silent)
		c := New(scripted{answers: func([]byte) [][]byte { <-silent; return nil }}, Options{Timeout: 50 * time.Millisecond})
		err := c.Attach(t.Context(), plain(), pages(t))
		wantIs(t, err, ErrTimeout)
		wantIs(t, err, kms.ErrUnavailable)
	})
	t.Run("cancelled", func(t *testing.T) {
		s := &inProcess{t: t, provider: f}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-f.entered; <-f.entered; cancel() }() // the first is of the child above
		_, err := New(s, Options{}).Create(ctx, plain(), "finance")
		wantIs(t, err, context.Canceled)
		s.wg.Wait()
		if len(f.ended) != 2 || f.ended[1] != context.Canceled {
			t.Errorf("the child did not notice that nobody listens: %v", f.ended)
		}
	})
}

// Many disks at once get their keys a few at a time.
func TestParallel(t *testing.T) {
	f := newFake()
	s := &inProcess{t: t, provider: f}
	c := New(s, Options{Parallel: 2})
	var wg sync.WaitGroup
	f.entered = make(chan string)
	f.hang["describe"] = true
	ctx, cancel := context.WithCancel(t.Context())
	for range 5 {
		wg.Go(func() { c.Create(ctx, plain(), "finance") })
	}
	<-f.entered
	<-f.entered
	select {
	case <-f.entered:
		t.Error("a third child")
	default:
	}
	if n := len(c.places); n != 2 {
		t.Errorf("%d children", n)
	}
	cancel()
	wg.Wait()
	s.wg.Wait()
	if n := f.called("describe"); n != 2 {
		t.Errorf("%d children asked, want 2: the others were cancelled while they waited", n)
	}
}

func TestRequireLocked(t *testing.T) {
	f := newFake()
	s := &inProcess{t: t, provider: f, lockErr: &secmem.MemlockError{Limit: 65536, Err: errors.New("no")}}
	c := New(s, Options{})
	if h := created(t, c); h == nil || !c.Unlocked() {
		t.Error("without the demand it goes on, and tells")
	}
	s.opt.RequireLocked = true
	_, err := c.Create(t.Context(), plain(), "finance")
	var m *secmem.MemlockError
	if !errors.As(err, &m) || m.Limit != 65536 {
		t.Errorf("error %v", err)
	}
	s.wg.Wait()
}

func aligned(b []byte) bool { return uintptr(unsafe.Pointer(&b[0]))%64 == 0 }
