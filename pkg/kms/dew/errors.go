package dew

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

// Error is what the KMS answered instead of a result. It wraps one of kms's
// errors.
type Error struct {
	Status int    // of HTTP
	Code   string // "KMS.0209"; may be empty
	Msg    string // the KMS's words, cut and cleaned
	Err    error  // kms.Err…
}

func (e *Error) Error() string {
	what := e.Msg
	if what == "" {
		what = fmt.Sprintf("HTTP status %d", e.Status)
	}
	if e.Code != "" {
		what += " (" + e.Code + ")"
	}
	return "KMS: " + what
}

// Unwrap returns the kms error.
func (e *Error) Unwrap() error { return e.Err }

// byCode gives DEW's codes their kms errors, in this one place.
var byCode = map[string]error{
	api.CodeKMSNotFound:     kms.ErrNotFound,
	api.CodeKMSKeyID:        kms.ErrNotFound, // it can be no key's
	api.CodeKMSDisabled:     kms.ErrDisabled,
	api.CodeKMSUnusable:     kms.ErrDisabled,
	api.CodeKMSPending:      kms.ErrPendingDeletion,
	api.CodeKMSFrozen:       kms.ErrFrozen,
	api.CodeKMSDeniedKey:    kms.ErrDenied,
	api.CodeKMSDeniedAPI:    kms.ErrDenied,
	api.CodeKMSNoAgency:     kms.ErrNoAgency,
	api.CodeKMSCipherText:   kms.ErrBinding,
	api.CodeKMSCipherLength: kms.ErrBinding,
	api.CodeKMSVerification: kms.ErrBinding,
}

const maxMessage = 300 // bytes of the KMS's words that are kept

// errorOf makes an error of a reply that is no success. The body of one holds
// no key; what cannot be understood of it is dropped all the same.
func errorOf(status int, body []byte) error {
	e := &Error{Status: status}
	var b api.KMSError
	if json.Unmarshal(body, &b) == nil {
		e.Code, e.Msg = clean(b.Error.Code, 32), clean(b.Error.Message, maxMessage)
	}
	switch known := byCode[e.Code]; {
	case status == http.StatusTooManyRequests:
		e.Err = kms.ErrThrottled
	case status >= 500:
		e.Err = kms.ErrUnavailable
	case known != nil:
		e.Err = known
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Err = kms.ErrDenied
	default:
		e.Err = kms.ErrProtocol
	}
	return e
}

// clean makes foreign words safe to print: short, one line, no controls.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
