package apiserver

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sealdisk/pkg/api"
	"sealdisk/pkg/disk"
)

// maxLimit is EVS's largest and default page of a list.
const maxLimit = 1000

func (s *Server) createVolume(q *request) (int, any, error) {
	var body api.CreateVolumeRequest
	if err := q.decode(&body); err != nil {
		return 0, nil, err
	}
	o, err := createOptions(q.project, &body)
	if err != nil {
		return 0, nil, err
	}
	j, err := s.cfg.Disks.Create(q.Context(), o)
	return http.StatusAccepted, accepted(j), err
}

func accepted(j disk.Job) api.JobResponse {
	return api.JobResponse{JobID: j.ID, VolumeIDs: []string{j.DiskID}}
}

// createOptions translates an EVS request. What would have to be ignored is refused.
func createOptions(project string, body *api.CreateVolumeRequest) (o disk.CreateOptions, err error) {
	v := body.Volume
	if v == nil {
		return o, usage(api.CodeVolumeBody, "the body has no volume")
	}
	for what, asked := range map[string]bool{
		"server_id":                    body.ServerID != "",
		"chargingMode":                 body.BssParam != nil && body.BssParam.ChargingMode != "" && body.BssParam.ChargingMode != "postPaid",
		"OS-SCH-HNT:scheduler_hints":   body.SchedulerHints != nil && body.SchedulerHints.DedicatedStorageID != "",
		"backup_id":                    v.BackupID != "",
		"imageRef":                     v.ImageRef != "",
		"snapshot_id":                  v.SnapshotID != "",
		"multiattach":                  v.Multiattach,
		"count":                        v.Count != nil && *v.Count != 1,
		"iops":                         v.IOPS != nil,
		"throughput":                   v.Throughput != nil,
		"metadata hw:passthrough=true": v.Metadata["hw:passthrough"] == "true",
	} {
		if asked {
			return o, usage(api.CodeVolumeBody, "%s is not supported", what)
		}
	}
	o = disk.CreateOptions{Project: project, Name: v.Name, Description: v.Description, VolumeType: v.VolumeType, Tags: v.Tags,
		Key: v.Metadata[api.MetaKeyID]}
	if v.Size < 0 || v.Size > 1<<30 {
		return o, usage(api.CodeVolumeSize, "bad size %d GiB", v.Size)
	}
	o.Size = v.Size << 30
	switch e := v.Metadata[api.MetaEncrypted]; e {
	case "1":
		o.Encrypted = true
	case "", "0":
		if o.Key != "" {
			return o, usage(api.CodeEncryption, "%s without %s \"1\"", api.MetaKeyID, api.MetaEncrypted)
		}
	default:
		return o, usage(api.CodeEncryption, "%s is \"1\" or \"0\", not %q", api.MetaEncrypted, e)
	}
	if x := v.Sealdisk; x != nil {
		o.SectorSize, o.BlockSize, o.NoDiscard, o.Preallocate = x.SectorSize, x.BlockSize, x.NoDiscard, x.Preallocate
		if x.SizeBytes != 0 {
			o.Size = x.SizeBytes
		}
	}
	return o, nil
}

func (s *Server) listVolumes(q *request) (int, any, error) {
	f, err := parseFilter(q.URL.Query())
	if err != nil {
		return 0, nil, err
	}
	all := slices.DeleteFunc(s.cfg.Disks.List(q.project), func(i disk.Info) bool { return !f.passes(i) })
	f.sort(all)
	reply := api.VolumesResponse{Count: len(all), Volumes: []api.Volume{}}
	for _, i := range f.page(all) {
		reply.Volumes = append(reply.Volumes, s.volume(i))
	}
	return http.StatusOK, reply, nil
}

// filter is the query of a list. Parameters that EVS knows and sealdisk has no
// use for are refused, so that nobody takes an unfiltered list for a filtered
// one.
type filter struct {
	name, status, id, marker, sortKey string
	ids                               []string
	limit, offset                     int
	ascending                         bool
}

func parseFilter(v url.Values) (f filter, err error) {
	f.limit, f.sortKey = maxLimit, "created_at"
	number := func(name, s string, least, most int) int {
		n, nerr := strconv.Atoi(s)
		switch {
		case nerr != nil || n < least:
			err = usage(api.CodeBadRequest, "%s is a number from %d on, not %q", name, least, s)
		case n > most:
			err = usage(api.CodeLimit, "%s is at most %d", name, most)
		}
		return n
	}
	for name, values := range v {
		s := values[0]
		switch name {
		case "name":
			f.name = s
		case "status":
			f.status = s
		case "id":
			f.id = s
		case "ids": // ids=['id1','id2']
			for _, id := range strings.Split(strings.Trim(s, "[]"), ",") {
				f.ids = append(f.ids, strings.Trim(id, " '\""))
			}
		case "marker":
			f.marker = s
		case "limit":
			f.limit = number(name, s, 1, maxLimit)
		case "offset":
			f.offset = number(name, s, 0, 1<<30)
		case "sort_key":
			f.sortKey = s
			if !slices.Contains([]string{"id", "status", "size", "created_at", "name"}, s) {
				err = usage(api.CodeBadRequest, "unknown sort_key %q", s)
			}
		case "sort_dir":
			f.ascending = s == "asc"
			if s != "asc" && s != "desc" {
				err = usage(api.CodeBadRequest, "sort_dir is asc or desc, not %q", s)
			}
		default:
			err = usage(api.CodeBadRequest, "the parameter %q is not supported", name)
		}
	}
	return f, err
}

func (f *filter) passes(i disk.Info) bool {
	switch {
	case f.name != "" && i.Name != f.name, f.status != "" && string(i.State) != f.status:
		return false
	case f.ids != nil:
		return slices.Contains(f.ids, i.ID)
	}
	return f.id == "" || i.ID == f.id
}

func (f *filter) sort(list []disk.Info) {
	slices.SortStableFunc(list, func(a, b disk.Info) int {
		var c int
		switch f.sortKey {
		case "id":
			c = cmp.Compare(a.ID, b.ID)
		case "status":
			c = cmp.Compare(a.State, b.State)
		case "size":
			c = cmp.Compare(a.Size, b.Size)
		case "name":
			c = cmp.Compare(a.Name, b.Name)
		default:
			c = a.Created.Compare(b.Created)
		}
		if !f.ascending {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.ID, b.ID))
	})
}

func (f *filter) page(list []disk.Info) []disk.Info {
	start := f.offset
	if f.marker != "" {
		start = 1 + slices.IndexFunc(list, func(i disk.Info) bool { return i.ID == f.marker })
	}
	start = min(start, len(list))
	return list[start:min(start+f.limit, len(list))]
}

func (s *Server) showVolume(q *request) (int, any, error) {
	i, err := s.cfg.Disks.Show(q.project, q.id)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, api.VolumeResponse{Volume: s.volume(i)}, nil
}

func (s *Server) deleteVolume(q *request) (int, any, error) {
	j, err := s.cfg.Disks.Delete(q.project, q.id)
	return http.StatusOK, api.JobResponse{JobID: j.ID}, err
}

// volumeAction answers os-extend, the one action of EVS: not yet.
func (s *Server) volumeAction(q *request) (int, any, error) {
	if _, err := s.cfg.Disks.Show(q.project, q.id); err != nil {
		return 0, nil, err
	}
	return http.StatusNotImplemented, nil, usage(api.CodeExtend, "disks can't be extended by this version")
}

func (s *Server) showJob(q *request) (int, any, error) {
	j, err := s.cfg.Disks.Job(q.project, q.id)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, jobReply(j), nil
}
