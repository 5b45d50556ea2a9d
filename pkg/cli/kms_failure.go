package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/dew"
)

// kmsFailure turns an error of the KMS into one for users, in this one place.
func kmsFailure(err error) error {
	var shown *api.Error
	if err == nil || errors.As(err, &shown) {
		return err
	}
	e := &api.Error{Message: err.Error(), Err: err}
	var answer *dew.Error
	if errors.As(err, &answer) {
		e.Code, e.Message = answer.Code, answer.Msg
	}
	if e.Message == "" {
		e.Message = err.Error()
	}
	switch {
	case errors.Is(err, kms.ErrNotFound):
		e.Class, e.Hint = api.ClassNotFound, "see: sealdisk key list"
	case errors.Is(err, kms.ErrDisabled), errors.Is(err, kms.ErrPendingDeletion), errors.Is(err, kms.ErrFrozen):
		e.Class = api.ClassKeyUnusable
	case errors.Is(err, kms.ErrNoAgency):
		e.Class, e.Hint = api.ClassDenied, "a Security Administrator can grant it: sealdisk agency grant"
	case errors.Is(err, kms.ErrDenied):
		e.Class, e.Hint = api.ClassDenied, "ask an administrator: root, or the user that runs the KMS"
	case errors.Is(err, kms.ErrThrottled), errors.Is(err, kms.ErrUnavailable):
		e.Class, e.Hint = api.ClassKMSUnreachable, "is the daemon running? start it with: sealdisk serve"
	case e.Code == api.CodeKMSAliasTaken, e.Code == api.CodeKMSDefaultKey, e.Code == api.CodeKMSNotDisabled, e.Code == api.CodeKMSNotEnabled:
		e.Class = api.ClassConflict
	case e.Code == api.CodeKMSQuota:
		e.Class = api.ClassNoSpace
	case answer != nil && answer.Status == http.StatusBadRequest:
		e.Class = api.ClassUsage
	case errors.Is(err, context.Canceled):
		e.Class, e.Message = api.ClassInternal, "interrupted"
	default:
		e.Class, e.Message = api.ClassInternal, fmt.Sprintf("the KMS: %v", err)
	}
	return e
}
