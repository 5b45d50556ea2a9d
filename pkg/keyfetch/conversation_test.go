package keyfetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

// Every error that has a name keeps it on its way out of the child.
func TestErrorsTravel(t *testing.T) {
	for _, c := range codes {
		t.Run(c.code, func(t *testing.T) {
			err := toWire(fmt.Errorf("doing this: %w", c.err)).err()
			wantIs(t, err, c.err)
			for _, other := range codes {
				if other.err != c.err && errors.Is(err, other.err) && !(c.code == "timeout" && other.err == kms.ErrUnavailable) {
					t.Errorf("it also is %q", other.code)
				}
			}
			if !strings.HasPrefix(err.Error(), "doing this: ") {
				t.Errorf("text %q", err)
			}
		})
	}
	err := toWire(&api.Error{Class: api.ClassDenied, Code: "KMS.0306", Message: "m\x1b[2J", Hint: "ask", Err: kms.ErrDenied}).err()
	var a *api.Error
	if !errors.As(err, &a) || a.Class != api.ClassDenied || a.Code != "KMS.0306" || a.Hint != "ask" || !errors.Is(err, kms.ErrDenied) {
		t.Errorf("%+v", a)
	}
	if strings.ContainsRune(a.Message+err.Error(), '\x1b') {
		t.Error("control characters come through")
	}
	if long := toWire(errors.New(strings.Repeat("x", 1<<20))); len(long.Message) > maxText+4 {
		t.Errorf("a message of %d bytes", len(long.Message))
	}
	if err := toWire(errors.New("other")).err(); errors.Is(err, kms.ErrDenied) || err.Error() != "other" {
		t.Error(err)
	}
}

// What the engine fixed comes back unchanged, or the answer is refused.
func TestAnswersChecked(t *testing.T) {
	honest := created(t, newClient(t, newFake()))
	reply := func(edit func(h *luks2.Header)) scripted {
		return scripted{answers: func([]byte) [][]byte {
			h := *honest
			edit(&h)
			b, _ := json.Marshal(&response{Version: protocolVersion, Header: &h})
			return [][]byte{b}
		}}
	}
	if _, err := New(reply(func(*luks2.Header) {}), Options{}).Create(t.Context(), plain(), "finance"); err != nil {
		t.Fatalf("the honest answer: %v", err)
	}
	for name, edit := range map[string]func(h *luks2.Header){
		"UUID":            func(h *luks2.Header) { h.UUID = "x" },
		"label":           func(h *luks2.Header) { h.Label = "x" },
		"sequence number": func(h *luks2.Header) { h.SeqID++ },
		"sector size":     func(h *luks2.Header) { h.SectorSize = 512 },
		"data offset":     func(h *luks2.Header) { h.DataOffset = 0 },
		"data size":       func(h *luks2.Header) { h.DataSize = 4096 },
		"requirements":    func(h *luks2.Header) { h.Requirements = nil },
		"disk id":         func(h *luks2.Header) { h.Token.DiskID = "x" },
		"project":         func(h *luks2.Header) { h.Token.Project = "x" },
		"generation":      func(h *luks2.Header) { h.Token.Generation = 9 },
		"AAD scheme":      func(h *luks2.Header) { h.Token.AADScheme = "none" },
		"keyslots":        func(h *luks2.Header) { h.Kept.Flags = []string{"allow-discards"} },
		"no wrapped key":  func(h *luks2.Header) { h.Token.WrappedDK = nil },
		"no key":          func(h *luks2.Header) { h.Token.KeyID = "" },
		"no provider":     func(h *luks2.Header) { h.Token.Provider = "" },
		"not sealed":      func(h *luks2.Header) { h.Token.MAC = nil },
		"no digest":       func(h *luks2.Header) { h.Digest = luks2.Digest{} },
	} {
		t.Run("create "+name, func(t *testing.T) {
			_, err := New(reply(edit), Options{}).Create(t.Context(), plain(), "finance")
			wantIs(t, err, ErrAnswer)
			_, err = New(reply(edit), Options{}).Reseal(t.Context(), honest, honest)
			wantIs(t, err, ErrAnswer)
		})
	}
	for name, edit := range map[string]func(h *luks2.Header){
		"wrapped key": func(h *luks2.Header) { h.Token.WrappedDK = []byte("x") },
		"key id":      func(h *luks2.Header) { h.Token.KeyID = "x" },
		"key version": func(h *luks2.Header) { h.Token.KeyVersion = "x" },
		"provider":    func(h *luks2.Header) { h.Token.Provider = "x" },
	} {
		t.Run("reseal "+name, func(t *testing.T) {
			_, err := New(reply(edit), Options{}).Reseal(t.Context(), honest, honest)
			wantIs(t, err, ErrAnswer)
		})
	}
}

func TestBrokenConversations(t *testing.T) {
	ok := []byte(`{"version":1,"locked":true}`)
	for _, tc := range []struct {
		name  string
		reply [][]byte
		want  error
	}{
		{"no answer", nil, ErrDied},
		{"not JSON", [][]byte{[]byte("hello")}, ErrAnswer},
		{"another version", [][]byte{[]byte(`{"version":2,"locked":true}`)}, ErrAnswer},
		{"unknown field", [][]byte{[]byte(`{"version":1,"locked":true,"dk":"00"}`)}, ErrAnswer},
		{"two objects", [][]byte{append(bytes.Clone(ok), ok...)}, ErrAnswer},
		{"two messages", [][]byte{ok, ok}, ErrAnswer},
		{"too long", [][]byte{append(bytes.Clone(ok), bytes.Repeat([]byte(" "), maxMessage)...)}, ErrAnswer},
		{"no header", [][]byte{ok}, ErrAnswer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(scripted{answers: func([]byte) [][]byte { return tc.reply }}, Options{}).Create(t.Context(), plain(), "finance")
			wantIs(t, err, tc.want)
		})
	}
	t.Run("attach, two messages", func(t *testing.T) {
		c := New(scripted{answers: func([]byte) [][]byte { return [][]byte{ok, ok} }}, Options{})
		wantIs(t, c.Attach(t.Context(), plain(), pages(t)), ErrAnswer)
	})
	t.Run("attach, does not go away", func(t *testing.T) {
		c := New(scripted{func([]byte) [][]byte { return [][]byte{ok} }, t.Context()}, Options{Timeout: 50 * time.Millisecond})
		wantIs(t, c.Attach(t.Context(), plain(), pages(t)), ErrTimeout)
	})
	t.Run("cannot start", func(t *testing.T) {
		_, err := New(cannotStart{}, Options{}).Create(t.Context(), plain(), "finance")
		wantIs(t, err, os.ErrPermission)
	})
}

type cannotStart struct{}

func (cannotStart) Spawn(context.Context, ...*os.File) error { return os.ErrPermission }

// The child answers what it can't use, and asks the KMS nothing.
func TestBadRequests(t *testing.T) {
	h, _ := json.Marshal(plain())
	for name, req := range map[string]string{
		"not JSON":         "hello",
		"empty object":     "{}",
		"another version":  `{"version":2,"op":"attach","header":` + string(h) + `,"timeout_ms":1000}`,
		"unknown op":       `{"version":1,"op":"show","header":` + string(h) + `,"timeout_ms":1000}`,
		"no header":        `{"version":1,"op":"create","timeout_ms":1000}`,
		"no time":          `{"version":1,"op":"create","header":` + string(h) + `}`,
		"negative time":    `{"version":1,"op":"create","header":` + string(h) + `,"timeout_ms":-1}`,
		"reseal of one":    `{"version":1,"op":"reseal","header":` + string(h) + `,"timeout_ms":1000}`,
		"attach, no pages": `{"version":1,"op":"attach","header":` + string(h) + `,"timeout_ms":1000}`,
		"too long":         `{"version":1,"op":"attach"` + strings.Repeat(" ", maxMessage),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			ours, theirs, err := pair()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			done := make(chan error, 1)
			go func() { done <- answer(theirs, nil, f, ChildOptions{}, nil) }()
			if _, err := ours.Write([]byte(req)); err != nil {
				t.Fatal(err)
			}
			b, err := receive(ours)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := parseResponse(b); err != nil || p.Error == nil || p.Header != nil {
				t.Errorf("answer %s: %v", b, err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if len(f.calls) != 0 {
				t.Errorf("the KMS was asked: %v", f.calls)
			}
		})
	}
}

func FuzzRequest(f *testing.F) {
	h, _ := json.Marshal(plain())
	f.Add([]byte(`{"version":1,"op":"create","key":"k","header":` + string(h) + `,"timeout_ms":1000}`))
	f.Add([]byte(`{"version":1,"op":"reseal","header":` + string(h) + `,"next":` + string(h) + `,"timeout_ms":1000}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseRequest(b)
		if err != nil {
			return
		}
		if q.Header == nil || q.TimeoutMS <= 0 {
			t.Fatal("incomplete request accepted")
		}
		again, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRequest(again); err != nil && len(again) <= maxMessage {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

func FuzzResponse(f *testing.F) {
	h, _ := json.Marshal(plain())
	f.Add([]byte(`{"version":1,"locked":true,"header":` + string(h) + `}`))
	f.Add([]byte(`{"version":1,"locked":false,"error":{"code":"kms.disabled","message":"no","need":1,"limit":2,"api":{"class":"denied","code":"KMS.0306","message":"x"}}}`))
	want := plain()
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseResponse(b)
		if err != nil {
			return
		}
		if p.Error != nil {
			if p.Error.err().Error() != printable(p.Error.Message) {
				t.Fatal("text lost")
			}
			return
		}
		if checkCreated(want, p.Header) == nil && difference(want, p.Header) == "UUID" {
			t.Fatal("another disk's header accepted")
		}
	})
}
