package kmsserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

const (
	contentJSON = "application/json"
	smallBody   = 4 << 10 // bytes
	keyBody     = 8 << 10 // a wrapped key of MaxDataKey bytes in hexadecimal, and the rest
	shortTime   = 10 * time.Second
	backupTime  = 5 * time.Minute
)

// call is one request on its way through a handler.
type call struct {
	ctx     context.Context
	w       http.ResponseWriter
	op      string
	project string
	peer    Peer
	role    role
	body    []byte // in locked memory where the route says secret
}

// decode reads the body into v. Unknown fields are passed over, as DEW does,
// so that newer clients work.
func (c *call) decode(v any) error {
	if err := json.Unmarshal(c.body, v); err != nil {
		return &reply{http.StatusBadRequest, api.CodeKMSJSON, "the body is not the JSON that is expected here"}
	}
	return nil
}

// handler answers a call. A nil reply means that it has written one itself.
type handler func(s *Server, c *call) (reply any, err error)

// route is one line of the table.
type route struct {
	method  string
	path    string
	roles   role
	body    int64         // most bytes of the request
	timeout time.Duration // for reading the request, the work and the reply
	secret  bool          // the body holds a key: keep it in locked memory
	handle  handler
}

// routes is the whole API: what is not here does not exist.
var routes = []route{
	{"POST", "/v1.0/{project}/kms/create-key", roleAdmin, smallBody, shortTime, false, (*Server).createKey},
	{"POST", "/v1.0/{project}/kms/list-keys", roleAdmin | roleUser, smallBody, shortTime, false, (*Server).listKeys},
	{"POST", "/v1.0/{project}/kms/describe-key", roleAdmin | roleUser | roleService, smallBody, shortTime, false, (*Server).describeKey},
	{"POST", "/v1.0/{project}/kms/enable-key", roleAdmin, smallBody, shortTime, false, (*Server).enableKey},
	{"POST", "/v1.0/{project}/kms/disable-key", roleAdmin, smallBody, shortTime, false, (*Server).disableKey},
	{"POST", "/v1.0/{project}/kms/create-datakey", roleAdmin, smallBody, shortTime, false, (*Server).createDatakey},
	{"POST", "/v1.0/{project}/kms/create-datakey-without-plaintext", roleAdmin | roleService, smallBody, shortTime, false, (*Server).createDatakeyWithoutPlaintext},
	{"POST", "/v1.0/{project}/kms/decrypt-datakey", roleAdmin | roleService, keyBody, shortTime, false, (*Server).decryptDatakey},
	{"POST", "/sealdisk/v1/{project}/agency", roleAdmin, smallBody, shortTime, false, (*Server).grantAgency},
	{"GET", "/sealdisk/v1/{project}/agency", roleAdmin | roleUser, 0, shortTime, false, (*Server).showAgency},
	{"DELETE", "/sealdisk/v1/{project}/agency", roleAdmin, 0, shortTime, false, (*Server).revokeAgency},
	{"GET", "/sealdisk/v1/status", roleAdmin | roleUser, 0, shortTime, false, (*Server).status},
	{"POST", "/sealdisk/v1/backup", roleAdmin, smallBody, backupTime, true, (*Server).backup},
}

// mount puts the table into the mux.
func (s *Server) mount() {
	allow := map[string]string{}
	for _, rt := range routes {
		s.mux.Handle(rt.method+" "+rt.path, s.wrap(rt))
		if allow[rt.path] != "" {
			allow[rt.path] += ", "
		}
		allow[rt.path] += rt.method
	}
	for p, methods := range allow {
		s.mux.HandleFunc(p, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", methods)
			s.fail(&call{w: w, op: p}, &reply{http.StatusMethodNotAllowed, api.CodeKMSURL, fmt.Sprintf("this path takes %s only", methods)})
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.fail(&call{w: w, op: "unknown"}, &reply{http.StatusNotFound, api.CodeKMSURL, "there is no such path"})
	})
}

// wrap does for every route what the table says: who, how much, how long.
func (s *Server) wrap(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), rt.timeout)
		defer cancel()
		rc := http.NewResponseController(w)
		deadline := time.Now().Add(rt.timeout)
		_ = errors.Join(rc.SetReadDeadline(deadline), rc.SetWriteDeadline(deadline)) // unsupported in tests' recorders only

		c := &call{ctx: ctx, w: w, op: rt.method + " " + path.Base(rt.path), project: r.PathValue("project")}
		err := s.admit(c, rt, r)
		if err == nil {
			var free func()
			if free, err = c.read(rt, r); err == nil {
				defer free()
			}
		}
		var v any
		if err == nil {
			v, err = rt.handle(s, c)
		}
		switch {
		case err != nil:
			s.fail(c, err)
		case v != nil:
			w.Header().Set("Content-Type", contentJSON)
			_ = json.NewEncoder(w).Encode(v) // the peer may be gone
		}
	}
}

// admit decides whether the peer may use the route.
func (s *Server) admit(c *call, rt route, r *http.Request) (err error) {
	if c.peer, c.role, err = s.principal(r); err != nil {
		return err
	}
	if c.role&rt.roles == 0 {
		return denied(fmt.Sprintf("uid %d may not do this", c.peer.UID))
	}
	if c.role != roleService {
		return nil
	}
	_, granted, err := s.store.Agency(c.project)
	if err == nil && !granted {
		err = fmt.Errorf("project %s: %w", c.project, kms.ErrNoAgency)
	}
	return err
}

// read takes in the body, whole and bounded. free clears it.
func (c *call) read(rt route, r *http.Request) (free func(), err error) {
	free = func() {}
	if rt.body == 0 {
		return free, nil
	}
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if mt, _, err := mime.ParseMediaType(ct); err != nil || mt != contentJSON {
			return free, &reply{http.StatusUnsupportedMediaType, api.CodeKMSParameter, "the body must be " + contentJSON}
		}
	}
	var room []byte
	if rt.secret {
		buf, err := secmem.Lock(int(rt.body) + 1)
		if err != nil {
			return free, err
		}
		free = func() { _ = buf.Destroy() } // clears before it can fail
		room = buf.Bytes()
	} else {
		room = make([]byte, rt.body+1)
	}
	n, err := io.ReadFull(r.Body, room)
	switch {
	case err == nil:
		err = &reply{http.StatusBadRequest, api.CodeKMSTooLong, fmt.Sprintf("the body is longer than %d bytes", rt.body)}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		c.body, err = room[:n], nil
	default:
		err = &reply{http.StatusBadRequest, api.CodeKMSJSON, "the body did not arrive whole"}
	}
	if err != nil {
		free()
		free = func() {}
	}
	return free, err
}
