package kmsserver

import (
	"encoding/json"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/logfield"
)

// reply is an error with its code and HTTP status.
type reply struct {
	status int
	code   string
	msg    string
}

func (e *reply) Error() string { return e.msg + " (" + e.code + ")" }

func denied(msg string) error { return &reply{http.StatusForbidden, api.CodeKMSDeniedAPI, msg} }
func badParameter(msg string) error {
	return &reply{http.StatusBadRequest, api.CodeKMSParameter, msg}
}
func missing(field string) error {
	return &reply{http.StatusBadRequest, api.CodeKMSMissing, field + " is missing"}
}

// codes maps the store's errors to DEW's codes and statuses, in this one place.
// The statuses are those of the API reference's error table: 400 for nearly all.
var codes = []struct {
	err    error
	status int
	code   string
}{
	{kms.ErrNotFound, http.StatusNotFound, api.CodeKMSNotFound},
	{kms.ErrDisabled, http.StatusBadRequest, api.CodeKMSDisabled},
	{kms.ErrPendingDeletion, http.StatusBadRequest, api.CodeKMSPending},
	{kms.ErrFrozen, http.StatusBadRequest, api.CodeKMSFrozen},
	{kms.ErrNoAgency, http.StatusForbidden, api.CodeKMSNoAgency},
	{kms.ErrBinding, http.StatusBadRequest, api.CodeKMSVerification},
	{keystore.ErrUnusable, http.StatusBadRequest, api.CodeKMSUnusable},
	{keystore.ErrDefaultKey, http.StatusBadRequest, api.CodeKMSDefaultKey},
	{keystore.ErrNotDisabled, http.StatusBadRequest, api.CodeKMSNotDisabled},
	{keystore.ErrNotEnabled, http.StatusBadRequest, api.CodeKMSNotEnabled},
	{keystore.ErrAlias, http.StatusBadRequest, api.CodeKMSAlias},
	{keystore.ErrAliasTaken, http.StatusBadRequest, api.CodeKMSAliasTaken},
	{keystore.ErrDescription, http.StatusBadRequest, api.CodeKMSDescription},
	{keystore.ErrQuota, http.StatusBadRequest, api.CodeKMSQuota},
	{keystore.ErrKeyID, http.StatusBadRequest, api.CodeKMSKeyID},
	{keystore.ErrParameter, http.StatusBadRequest, api.CodeKMSParameter},
	{keystore.ErrClosed, http.StatusServiceUnavailable, api.CodeKMSInternal},
	{keystore.ErrCorrupt, http.StatusInternalServerError, api.CodeKMSStorage},
}

// asReply finds the code of err. What has none is an internal error, whose
// words go to the log only.
func asReply(err error) (r *reply, internal bool) {
	if errors.As(err, &r) {
		return r, false
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &reply{c.status, c.code, err.Error()}, c.status >= 500
		}
	}
	return &reply{http.StatusInternalServerError, api.CodeKMSInternal, "internal error of the KMS; its log says more"}, true
}

// fail answers with err. What was refused to somebody, and data keys that do
// not unwrap, stand in the log as what was done does.
func (s *Server) fail(c *call, err error) {
	w := c.w
	r, internal := asReply(err)
	switch {
	case internal:
		s.log.Error("request failed", logfield.Op(c.op), logfield.Err(err))
	case r.status == http.StatusForbidden, r.code == api.CodeKMSVerification:
		s.log.Warn("refused", logfield.Op(c.op), logfield.Project(c.project), logfield.UID(c.peer.UID), logfield.PID(c.peer.PID), logfield.Reason(r.code))
	}
	body, _ := json.Marshal(api.KMSError{Error: api.KMSErrorDetail{Code: r.code, Message: r.msg}}) // two strings
	w.Header().Set("Content-Type", contentJSON)
	w.WriteHeader(r.status)
	_, _ = w.Write(append(body, '\n')) // the peer may be gone
}

// audit logs who did what with which key.
func (s *Server) audit(c *call, fields ...zap.Field) {
	s.log.Info("done", append([]zap.Field{logfield.Op(c.op), logfield.Project(c.project), logfield.UID(c.peer.UID), logfield.PID(c.peer.PID)}, fields...)...)
}
