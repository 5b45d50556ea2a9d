package apiserver

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// route is one line of the API's table.
type route struct {
	method, path string // {name} matches one segment of the path
	role         Role
	limit        int64         // of the body, bytes; 0: no body is taken
	timeout      time.Duration // of the handler
	handle       func(*Server, *request) (status int, reply any, err error)
}

const (
	small = 64 << 10
	// asks bounds a handler that asks the KMS; longer than a key may take.
	asks = 60 * time.Second
	// drains bounds a handler that waits for clients of a disk.
	drains = 90 * time.Second
	quick  = 10 * time.Second
)

// routes is the whole API. The EVS paths are those of the EVS API
// reference.
var routes = []route{
	{http.MethodPost, "/v2.1/{project}/cloudvolumes", RoleUser, small, asks, (*Server).createVolume},
	{http.MethodGet, "/v2/{project}/cloudvolumes/detail", RoleUser, 0, quick, (*Server).listVolumes},
	{http.MethodGet, "/v2/{project}/cloudvolumes/{id}", RoleUser, 0, quick, (*Server).showVolume},
	{http.MethodDelete, "/v2/{project}/cloudvolumes/{id}", RoleUser, 0, quick, (*Server).deleteVolume},
	{http.MethodPost, "/v2.1/{project}/cloudvolumes/{id}/action", RoleUser, small, quick, (*Server).volumeAction},
	{http.MethodGet, "/v1/{project}/jobs/{id}", RoleUser, 0, quick, (*Server).showJob},

	{http.MethodPost, "/sealdisk/v1/{project}/disks/{id}/attach", RoleUser, small, asks, (*Server).attach},
	{http.MethodPost, "/sealdisk/v1/{project}/disks/{id}/detach", RoleUser, small, drains, (*Server).detach},
	{http.MethodPost, "/sealdisk/v1/{project}/disks/{id}/finalize", RoleUser, small, quick, (*Server).finalize},
	{http.MethodPost, "/sealdisk/v1/{project}/disks/import", RoleAdmin, small, asks, (*Server).importDisk},
	{http.MethodGet, "/sealdisk/v1/status", RoleUser, 0, quick, (*Server).status},
}

// match returns the route of a request. Without one it returns the methods that
// the path takes, none for an unknown path.
func match(method, escapedPath string) (rt *route, vars map[string]string, allowed []string) {
	segments := strings.Split(escapedPath, "/")
	for i := range segments {
		s, err := url.PathUnescape(segments[i])
		if err != nil {
			return nil, nil, nil
		}
		segments[i] = s
	}
	for i := range routes {
		v, ok := routes[i].matchPath(segments)
		switch {
		case !ok:
		case routes[i].method == method:
			return &routes[i], v, nil
		default:
			allowed = append(allowed, routes[i].method)
		}
	}
	return nil, nil, allowed
}

func (rt *route) matchPath(segments []string) (map[string]string, bool) {
	pattern := strings.Split(rt.path, "/")
	if len(pattern) != len(segments) {
		return nil, false
	}
	vars := map[string]string{}
	for i, p := range pattern {
		name, isVar := strings.CutPrefix(p, "{")
		switch {
		case isVar && segments[i] != "":
			vars[strings.TrimSuffix(name, "}")] = segments[i]
		case p != segments[i]:
			return nil, false
		}
	}
	return vars, true
}
