package api

import "net/http"

// The exit codes of the program. They are never reused for something else.
const (
	ExitOK = 0
	// ExitInternal is also the code of a failure without a class.
	ExitInternal = 1
	ExitUsage    = 2
)

// classes maps each class, in this one place, to its exit code and HTTP status.
var classes = map[Class]struct{ exit, status int }{
	ClassInternal:          {ExitInternal, http.StatusInternalServerError},
	ClassUsage:             {ExitUsage, http.StatusBadRequest},
	ClassNotFound:          {3, http.StatusNotFound},
	ClassConflict:          {4, http.StatusConflict},
	ClassDenied:            {5, http.StatusForbidden},
	ClassKeyUnusable:       {6, http.StatusBadRequest}, // as EVS.2040
	ClassKMSUnreachable:    {7, http.StatusServiceUnavailable},
	ClassDaemonUnreachable: {8, http.StatusBadGateway},
	ClassNoSpace:           {9, http.StatusRequestEntityTooLarge}, // as EVS.5413
	ClassCorrupt:           {10, http.StatusInternalServerError},  // as EVS.2024
}

// ExitCode returns the exit code of a program that failed with an error of
// class c.
func (c Class) ExitCode() int {
	if v, ok := classes[c]; ok {
		return v.exit
	}
	return ExitInternal
}

// ClassOfExit is the inverse of ExitCode, for a program that ran another.
func ClassOfExit(code int) Class {
	for c, v := range classes {
		if v.exit == code {
			return c
		}
	}
	return ClassInternal
}

// HTTPStatus returns the status of an HTTP reply that carries an error of class c.
func (c Class) HTTPStatus() int {
	if v, ok := classes[c]; ok {
		return v.status
	}
	return http.StatusInternalServerError
}

// ClassOfStatus guesses the class of an HTTP status whose body named none.
func ClassOfStatus(status int) Class {
	switch {
	case status == http.StatusNotFound:
		return ClassNotFound
	case status == http.StatusConflict:
		return ClassConflict
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return ClassDenied
	case status >= 400 && status < 500:
		return ClassUsage
	}
	return ClassInternal
}
