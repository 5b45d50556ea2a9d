// Package api holds what the HTTP servers and their clients share: error
// classes and the request and response types of the EVS, DEW-KMS and sealdisk
// APIs.
package api

import "errors"

// Class says what kind of failure an error is. The HTTP status and the exit
// code follow from it, each mapped in one place.
type Class string

const (
	ClassInternal          Class = "internal"           // exit 1
	ClassUsage             Class = "usage"              // exit 2: bad input
	ClassNotFound          Class = "not_found"          // exit 3
	ClassConflict          Class = "conflict"           // exit 4: state does not allow it
	ClassDenied            Class = "denied"             // exit 5: no right, or no agency
	ClassKeyUnusable       Class = "key_unusable"       // exit 6: disabled, pending deletion, frozen, deleted
	ClassKMSUnreachable    Class = "kms_unreachable"    // exit 7
	ClassDaemonUnreachable Class = "daemon_unreachable" // exit 8
	ClassNoSpace           Class = "no_space"           // exit 9: space or quota
	ClassCorrupt           Class = "corrupt"            // exit 10: damaged header, wrong DK, forged
)

// Error is a failure as users see it: "error: Message", "hint: Hint".
type Error struct {
	Class   Class  `json:"class"`
	Code    string `json:"code"` // e.g. "EVS.2024", "KMS.0211"; may be empty
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Err     error  `json:"-"` // cause, for logs and errors.Is
}

func (e *Error) Error() string {
	if e.Code != "" {
		return e.Message + " (" + e.Code + ")"
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of the first *Error in err's chain, else
// ClassInternal.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ClassInternal
}
