package apiserver

import (
	"fmt"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/disk"
)

const gib = 1 << 30

// volume shows a disk as EVS does.
func (s *Server) volume(i disk.Info) api.Volume {
	v := api.Volume{
		ID: i.ID, Links: []api.Link{}, Name: i.Name, Status: string(i.State), Attachments: []api.Attachment{},
		Description: i.Description, CreatedAt: evsTime(i.Created), UpdatedAt: evsTime(i.Updated), TenantID: i.Project,
		VolumeImageMetadata: map[string]string{}, VolumeType: i.VolumeType, Size: (i.Size + gib - 1) / gib,
		Bootable: "false", Shareable: "false", ServiceType: "EVS", Tags: i.Tags,
		Metadata: map[string]string{"hw:passthrough": "false"},
		Sealdisk: extra(i),
	}
	if s.cfg.Connections != nil {
		v.Sealdisk.Connections = s.cfg.Connections(i.ID)
	}
	if v.Tags == nil {
		v.Tags = map[string]string{}
	}
	if e := i.Encryption; e != nil {
		v.Encrypted = true
		v.Metadata[api.MetaEncrypted], v.Metadata[api.MetaKeyID] = "1", e.KeyID
	}
	if i.State == disk.StateInUse && i.Wish != nil {
		v.Attachments = append(v.Attachments, api.Attachment{AttachedAt: evsTime(i.Wish.Since), AttachmentID: i.ID,
			HostName: s.cfg.HostName, ServerID: s.cfg.HostName, ID: i.ID, VolumeID: i.ID})
	}
	return v
}

func extra(i disk.Info) api.VolumeExtra {
	x := api.VolumeExtra{SizeBytes: i.Size, BlockSize: i.BlockSize, Discard: i.Discard, Preallocated: i.Preallocated,
		Reason: i.Reason, URI: i.URI, KeyMemory: string(i.KeyMemory)}
	if e := i.Encryption; e != nil {
		x.SectorSize, x.Holes, x.Provider, x.KeyID, x.Generation = e.SectorSize, e.Holes, e.Provider, e.KeyID, e.MinGeneration
	}
	if f := i.SyncFailed; f != nil {
		x.SyncFailed = fmt.Sprintf("%s: %s", f.Time.Format(time.RFC3339), f.Reason)
	}
	if w := i.Wish; w != nil {
		x.Wished, x.AtBoot, x.ReadOnly, x.AttachUID = true, w.AtBoot, w.ReadOnly, w.UID
	}
	if j := i.Job; j != nil {
		x.JobID = j.ID
		if !j.Done() {
			x.Task = string(j.Type)
		}
	}
	return x
}

func jobReply(j disk.Job) api.Job {
	return api.Job{
		Status: string(j.Status), JobID: j.ID, JobType: string(j.Type), BeginTime: evsTime(j.Begin), EndTime: evsTime(j.End),
		Entities:  api.JobEntities{Size: (j.Size + gib - 1) / gib, VolumeID: j.DiskID, Name: j.Disk},
		ErrorCode: j.FailCode, FailReason: j.FailReason, Class: j.FailClass, Hint: j.FailHint,
	}
}

func evsTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(api.TimeFormat)
}
