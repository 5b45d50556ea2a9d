package keyfetch

import (
	"errors"
	"strings"
	"unicode"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

var (
	// ErrDied is returned when the child ended without an answer.
	ErrDied = errors.New("the key child ended without an answer")
	// ErrTimeout is returned, together with kms.ErrUnavailable, when there was no
	// answer by the deadline.
	ErrTimeout = errors.New("no answer by the deadline")
	// ErrAnswer is returned when the child answered something else than was asked for.
	ErrAnswer = errors.New("unexpected answer of the key child")
	// ErrBadKey is returned when what the KMS gave can't be a disk's data key:
	// wrong length, equal halves, all zero, or another one at the second call.
	ErrBadKey = errors.New("the KMS gave an unusable data key")
)

// codes maps, in this one place and both ways, errors to their names on the
// wire. The first that matches counts.
var codes = []struct {
	code string
	err  error
}{
	{"kms.not_found", kms.ErrNotFound},
	{"kms.disabled", kms.ErrDisabled},
	{"kms.pending_deletion", kms.ErrPendingDeletion},
	{"kms.frozen", kms.ErrFrozen},
	{"kms.no_agency", kms.ErrNoAgency},
	{"kms.denied", kms.ErrDenied},
	{"kms.binding", kms.ErrBinding},
	{"kms.throttled", kms.ErrThrottled},
	{"timeout", ErrTimeout},
	{"kms.unavailable", kms.ErrUnavailable},
	{"bad_key", ErrBadKey},
	{"kms.protocol", kms.ErrProtocol},
	{"luks2.wrong_key", luks2.ErrWrongKey},
	{"luks2.forged", luks2.ErrForged},
	{"luks2.unsupported", luks2.ErrUnsupported},
	{"luks2.damaged", luks2.ErrDamaged},
	{"luks2.not_luks2", luks2.ErrNotLUKS2},
	{"luks2.invalid", luks2.ErrInvalid},
	{"luks2.conflict", luks2.ErrConflict},
	{"memlock", secmem.ErrMemlock},
}

// codeInternal is the name of every other error.
const codeInternal = "internal"

// wireError is an error in a response. It holds no key: the errors of
// kms.Provider and luks2.Header don't.
type wireError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Of an *api.Error in the chain, if there is one.
	API *api.Error `json:"api,omitempty"`
	// Of a *secmem.MemlockError.
	Need  uint64 `json:"need,omitempty"`
	Limit uint64 `json:"limit,omitempty"`
}

// maxText bounds each text of an error, in bytes.
const maxText = 1024

func toWire(err error) *wireError {
	w := &wireError{Code: codeInternal, Message: printable(err.Error())}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			w.Code = c.code
			break
		}
	}
	var m *secmem.MemlockError
	if errors.As(err, &m) {
		w.Need, w.Limit = m.Need, m.Limit
	}
	var a *api.Error
	if errors.As(err, &a) {
		w.API = &api.Error{Class: a.Class, Code: printable(a.Code), Message: printable(a.Message), Hint: printable(a.Hint)}
	}
	return w
}

// err makes the error that toWire was given: it matches the same sentinel
// and has the same text.
func (w *wireError) err() error {
	e := &childError{text: printable(w.Message)}
	for _, c := range codes {
		if c.code == w.Code {
			e.causes = append(e.causes, c.err)
		}
	}
	switch {
	case w.Code == "timeout":
		e.causes = append(e.causes, kms.ErrUnavailable)
	case w.Code == "memlock":
		e.causes = append(e.causes, &secmem.MemlockError{Need: w.Need, Limit: w.Limit, Err: errors.New("in the key child")})
	}
	if w.API != nil {
		e.causes = append(e.causes, &api.Error{Class: w.API.Class, Code: printable(w.API.Code),
			Message: printable(w.API.Message), Hint: printable(w.API.Hint)})
	}
	return e
}

// childError is an error that happened in the child.
type childError struct {
	text   string
	causes []error
}

func (e *childError) Error() string   { return e.text }
func (e *childError) Unwrap() []error { return e.causes }

// printable bounds s and replaces what could disturb a terminal or a log.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "�")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
