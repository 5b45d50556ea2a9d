package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/google/uuid"

	"sealdisk/pkg/api"
	"sealdisk/pkg/logfield"
)

// request is what a handler gets.
type request struct {
	*http.Request
	peer    Peer
	project string
	id      string
	body    []byte // within the route's limit
}

// ServeHTTP checks a request and hands it to its route.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	w.Header().Set("X-Request-Id", id)
	status, reply, err := s.serve(w, r)
	if err != nil {
		status = s.explain(r, id, status, &reply, err)
	}
	b, merr := json.Marshal(reply)
	if merr != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":{"class":"internal","code":"EVS.5500","message":"the reply can't be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.cfg.Log.Debug("reply not sent", logfield.Op(r.Method+" "+r.URL.Path), logfield.Err(err))
	}
}

// explain makes the reply of a failed request.
func (s *Server) explain(r *http.Request, id string, status int, reply *any, err error) int {
	e := new(api.Error)
	if !errors.As(err, &e) {
		e = &api.Error{Class: api.ClassInternal, Code: api.CodeInternal, Message: "internal error", Hint: "the daemon's log has request " + id}
	}
	if status < 400 { // the handler meant it for success
		status = e.Class.HTTPStatus()
	}
	if e.Class == api.ClassInternal {
		s.cfg.Log.Error("request failed", logfield.Op(r.Method+" "+r.URL.Path), logfield.Reason(id), logfield.Err(err))
	}
	*reply = api.ErrorBody{Error: e, RequestID: id}
	return status
}

// serve finds the route and runs it. With an error, a status below 400 stands for that
// of the error's class.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) (status int, reply any, err error) {
	defer func() {
		if p := recover(); p != nil {
			status, err = 0, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	peer, _ := r.Context().Value(peerKey{}).(Peer)
	role := RoleNone
	if peer.Known {
		role = s.cfg.Role(peer)
	}
	if role == RoleNone {
		return 0, nil, &api.Error{Class: api.ClassDenied, Code: api.CodeUnauthorized,
			Message: fmt.Sprintf("user %d may not use this daemon", peer.UID), Hint: "only the daemon's own user and root may"}
	}
	rt, vars, allowed := match(r.Method, r.URL.EscapedPath())
	switch {
	case rt == nil && len(allowed) > 0:
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return http.StatusMethodNotAllowed, nil, usage(api.CodeBadRequest, "%s takes %s", r.URL.Path, strings.Join(allowed, ", "))
	case rt == nil:
		return http.StatusNotFound, nil, usage(api.CodeBadRequest, "there is nothing at %s", r.URL.Path)
	case role < rt.role:
		return 0, nil, &api.Error{Class: api.ClassDenied, Code: api.CodeUnauthorized, Message: "only an administrator may do this"}
	}
	q := &request{Request: r, peer: peer, project: vars["project"], id: vars["id"]}
	if status, err := q.readBody(w, rt.limit); err != nil {
		return status, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), rt.timeout)
	defer cancel()
	q.Request = r.WithContext(ctx)
	return rt.handle(s, q)
}

// readBody reads the body, of at most limit bytes and JSON by its type.
func (q *request) readBody(w http.ResponseWriter, limit int64) (status int, err error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, q.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, usage(api.CodeBadRequest, "the body is longer than %d bytes", limit)
	case err != nil:
		return http.StatusBadRequest, usage(api.CodeBadRequest, "the body can't be read: %v", err)
	case len(b) == 0:
		return 0, nil
	}
	if t, _, err := mime.ParseMediaType(q.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return http.StatusUnsupportedMediaType, usage(api.CodeBadRequest, "the body must be application/json")
	}
	q.body = b
	return 0, nil
}

// decode parses the body into v, strictly: known fields only, one value. An
// empty body leaves v as it is.
func (q *request) decode(v any) error {
	if len(q.body) == 0 {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(string(q.body)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return usage(api.CodeBadRequest, "malformed body: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return usage(api.CodeBadRequest, "malformed body: something follows the object")
	}
	return nil
}

func usage(code, format string, v ...any) error {
	return &api.Error{Class: api.ClassUsage, Code: code, Message: fmt.Sprintf(format, v...)}
}
