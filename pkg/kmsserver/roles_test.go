package kmsserver

import (
	"context"
	"errors"
	"net/http"
	"os"
	"testing"

	"sealdisk/pkg/api"
)

func TestRoles(t *testing.T) {
	own := uint32(os.Geteuid())
	const service, extra, stranger = 4001, 4002, 4003
	s := &Server{policy: Policy{ServiceUID: service, AdminUIDs: []uint32{extra}}}
	evs := []string{api.PrincipalEVS}
	for _, tt := range []struct {
		name   string
		uid    uint32
		header []string
		want   role // 0 is denied
	}{
		{"own uid", own, nil, roleAdmin},
		{"root", 0, nil, roleAdmin},
		{"a further administrator", extra, nil, roleAdmin},
		{"the service without the header", service, nil, roleUser},
		{"the service", service, evs, roleService},
		{"anybody", stranger, nil, roleUser},
		{"anybody as the service", stranger, evs, 0},
		{"root as the service", 0, evs, 0},
		{"another principal", service, []string{"root"}, 0},
		{"an empty principal", service, []string{""}, 0},
		{"two principals", service, []string{api.PrincipalEVS, api.PrincipalEVS}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &http.Request{Header: http.Header{api.HeaderPrincipal: tt.header}}
			r = r.WithContext(context.WithValue(t.Context(), peerKey{}, Peer{UID: tt.uid}))
			_, got, err := s.principal(r)
			if got != tt.want || (err == nil) != (tt.want != 0) {
				t.Errorf("role %d, %v, want %d", got, err, tt.want)
			}
		})
	}
	_, got, err := s.principal(&http.Request{Header: http.Header{}})
	var r *reply
	if got != 0 || !errors.As(err, &r) || r.status != http.StatusForbidden {
		t.Errorf("without a peer: role %d, %v", got, err)
	}
}

// Every route names who may use it and is bounded.
func TestRouteTable(t *testing.T) {
	for _, rt := range routes {
		if rt.roles == 0 || rt.timeout <= 0 || rt.body > keyBody || rt.handle == nil {
			t.Errorf("%s %s: roles %d, timeout %v, body %d", rt.method, rt.path, rt.roles, rt.timeout, rt.body)
		}
		if rt.method == http.MethodPost && rt.body == 0 {
			t.Errorf("%s %s takes no body", rt.method, rt.path)
		}
	}
}
