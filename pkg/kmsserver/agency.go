package kmsserver

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

func (s *Server) agency(project string) (api.Agency, error) {
	a, granted, err := s.store.Agency(project)
	if err != nil || !granted {
		return api.Agency{Project: project}, err
	}
	rsp := api.Agency{Project: project, Granted: true, GrantedAt: a.GrantedAt.Format(time.RFC3339), GrantedBy: fmt.Sprintf("uid %d", a.GrantedBy)}
	k, err := s.store.Key(project, api.DefaultKeyAlias)
	if err != nil && !errors.Is(err, kms.ErrNotFound) {
		return api.Agency{}, err
	}
	rsp.DefaultKey = k.ID
	return rsp, nil
}

func (s *Server) grantAgency(c *call) (any, error) {
	if _, err := s.store.Grant(c.project, c.peer.UID); err != nil {
		return nil, err
	}
	s.audit(c)
	return s.agency(c.project)
}

func (s *Server) showAgency(c *call) (any, error) { return s.agency(c.project) }

func (s *Server) revokeAgency(c *call) (any, error) {
	revoked, err := s.store.Revoke(c.project)
	if err != nil {
		return nil, err
	}
	if !revoked {
		return nil, &reply{http.StatusNotFound, api.CodeKMSNoAgency, "project " + c.project + " has granted no agency"}
	}
	s.audit(c)
	return s.agency(c.project)
}

// status tells nothing secret: it is for whoever can reach the socket.
func (s *Server) status(*call) (any, error) {
	st, err := s.store.Status()
	if err != nil {
		return nil, err
	}
	return api.KMSStatus{Store: st.Path, StoreID: st.ID, Format: st.Format, RootKey: string(st.Root),
		MemoryLocked: s.locked, Keys: st.Keys, Agencies: st.Agencies, PID: os.Getpid()}, nil
}
