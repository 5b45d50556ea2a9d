package apiserver

import (
	"net/http"

	"sealdisk/pkg/api"
	"sealdisk/pkg/disk"
)

func (s *Server) attach(q *request) (int, any, error) {
	var body api.AttachRequest
	if err := q.decode(&body); err != nil {
		return 0, nil, err
	}
	i, err := s.cfg.Disks.Attach(q.Context(), q.project, q.id, disk.AttachOptions{
		UID: q.peer.UID, GID: q.peer.GID, ReadOnly: body.ReadOnly, AtBoot: body.AtBoot, AcceptDataLoss: body.AcceptDataLoss})
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, api.AttachResponse{ID: i.ID, Name: i.Name, URI: i.URI, BlockSize: i.BlockSize,
		ReadOnly: body.ReadOnly, KeyMemory: string(i.KeyMemory)}, nil
}

func (s *Server) detach(q *request) (int, any, error) {
	if err := q.decode(&api.Empty{}); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, api.Empty{}, s.cfg.Disks.Detach(q.Context(), q.project, q.id)
}

func (s *Server) finalize(q *request) (int, any, error) {
	if err := q.decode(&api.Empty{}); err != nil {
		return 0, nil, err
	}
	j, err := s.cfg.Disks.Finalize(q.Context(), q.project, q.id)
	return http.StatusAccepted, accepted(j), err
}

func (s *Server) importDisk(q *request) (int, any, error) {
	var body api.ImportRequest
	if err := q.decode(&body); err != nil {
		return 0, nil, err
	}
	j, err := s.cfg.Disks.Import(q.Context(), disk.ImportOptions{Project: q.project, Path: body.Path, Name: body.Name,
		Unencrypted: body.Unencrypted, BlockSize: body.BlockSize})
	return http.StatusAccepted, accepted(j), err
}

func (s *Server) status(q *request) (int, any, error) {
	return http.StatusOK, s.cfg.Status(q.Context()), nil
}
