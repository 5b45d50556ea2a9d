package api

// Codes of EVS errors, from the table "Error Codes" of the EVS API reference
// (support.huaweicloud.com/en-us/api-evs/evs_04_0038.html). The statuses of the replies follow
// from the Class, see Class.HTTPStatus.
const (
	CodeProject           = "EVS.0001" // invalid tenant id
	CodeVolumeName        = "EVS.1003" // invalid volume name
	CodeVolumeDescription = "EVS.1004" // invalid volume description
	CodeVolumeBody        = "EVS.1009" // invalid volume in a create request
	CodeVolumeSize        = "EVS.1010" // invalid volume size
	CodeExtend            = "EVS.1014" // the volume can't be extended
	CodeVolumeError       = "EVS.2024" // the volume is in error
	CodeKeyState          = "EVS.2040" // the status of the key is not enabled
	CodeEncryption        = "EVS.2041" // invalid encryption parameter
	CodeKMSCheck          = "EVS.2044" // KMS can't be asked
	CodeKeyMissing        = "EVS.2105" // the key does not exist or was deleted
	CodeAttach            = "EVS.2134" // attach failed
	CodeLimit             = "EVS.2142" // limit above 1000
	CodeNoAgency          = "EVS.2143" // an agency must be created for this project
	CodeBadRequest        = "EVS.5400" // malformed body, URL or parameter; wrong status of the disk
	CodeUnauthorized      = "EVS.5403" // no permission
	CodeNotFound          = "EVS.5404" // the resource does not exist
	CodeQuota             = "EVS.5413" // quota or space
	CodeInternal          = "EVS.5500" // internal error
	CodeUnavailable       = "EVS.5503" // service unavailable
	CodeJobNotFound       = "Common.0011"
)

// Metadata keys of a volume.
const (
	MetaEncrypted = "__system__encrypted" // "1" or "0"
	MetaKeyID     = "__system__cmkid"     // key id; here an alias is taken too
)

// ErrorBody is the body of every reply that is an error.
type ErrorBody struct {
	Error     *Error `json:"error"`
	RequestID string `json:"request_id,omitempty"`
}

// CreateVolumeRequest is the body of POST /v2.1/{project}/cloudvolumes.
type CreateVolumeRequest struct {
	BssParam       *BssParam       `json:"bssParam,omitempty"`
	Volume         *CreateVolume   `json:"volume"`
	ServerID       string          `json:"server_id,omitempty"` // refused: attach is a call of its own
	SchedulerHints *SchedulerHints `json:"OS-SCH-HNT:scheduler_hints,omitempty"`
}

// CreateVolume describes the volume to be made. What sealdisk can't honour is
// refused: sources (backup, image, snapshot), sharing, more than one, speed limits.
type CreateVolume struct {
	AvailabilityZone    string            `json:"availability_zone"` // taken, without effect
	BackupID            string            `json:"backup_id,omitempty"`
	Count               *int              `json:"count,omitempty"`
	Description         string            `json:"description,omitempty"`
	EnterpriseProjectID string            `json:"enterprise_project_id,omitempty"` // taken, without effect
	ImageRef            string            `json:"imageRef,omitempty"`
	Metadata            map[string]string `json:"metadata,omitempty"`
	Multiattach         bool              `json:"multiattach,omitempty"`
	Name                string            `json:"name,omitempty"`
	Size                int64             `json:"size"` // GiB
	SnapshotID          string            `json:"snapshot_id,omitempty"`
	VolumeType          string            `json:"volume_type"` // stored, without effect
	Tags                map[string]string `json:"tags,omitempty"`
	IOPS                *int              `json:"iops,omitempty"`
	Throughput          *int              `json:"throughput,omitempty"`
	// Sealdisk holds what EVS lacks.
	Sealdisk *CreateVolumeExtra `json:"sealdisk,omitempty"`
}

// CreateVolumeExtra is sealdisk's addition to CreateVolume.
type CreateVolumeExtra struct {
	SizeBytes   int64 `json:"size_bytes,omitempty"`  // instead of size, a multiple of 4096
	SectorSize  int   `json:"sector_size,omitempty"` // of the encryption, bytes: 512 or 4096 (default)
	BlockSize   int   `json:"block_size,omitempty"`  // logical, bytes: 512 (default) or 4096
	NoDiscard   bool  `json:"no_discard,omitempty"`  // fill with encrypted zeros, never have holes
	Preallocate bool  `json:"preallocate,omitempty"`
}

// BssParam says how a volume is paid for. Only postPaid is taken.
type BssParam struct {
	ChargingMode string `json:"chargingMode,omitempty"`
	IsAutoPay    string `json:"isAutoPay,omitempty"`
	IsAutoRenew  string `json:"isAutoRenew,omitempty"`
	PeriodNum    *int   `json:"periodNum,omitempty"`
	PeriodType   string `json:"periodType,omitempty"`
}

// SchedulerHints is refused unless empty.
type SchedulerHints struct {
	DedicatedStorageID string `json:"dedicated_storage_id,omitempty"`
}

// JobResponse is the reply to a request that a job carries out.
type JobResponse struct {
	JobID     string   `json:"job_id"`
	VolumeIDs []string `json:"volume_ids,omitempty"`
}

// Volume is a disk as EVS shows it.
type Volume struct {
	ID                  string            `json:"id"`
	Links               []Link            `json:"links"`
	Name                string            `json:"name"`
	Status              string            `json:"status"`
	Attachments         []Attachment      `json:"attachments"`
	AvailabilityZone    string            `json:"availability_zone"`
	Host                string            `json:"os-vol-host-attr:host"`
	SnapshotID          string            `json:"snapshot_id"`
	Description         string            `json:"description"`
	CreatedAt           string            `json:"created_at"`
	TenantID            string            `json:"os-vol-tenant-attr:tenant_id"`
	VolumeImageMetadata map[string]string `json:"volume_image_metadata"`
	VolumeType          string            `json:"volume_type"`
	Size                int64             `json:"size"` // GiB, rounded up
	Bootable            string            `json:"bootable"`
	Metadata            map[string]string `json:"metadata"`
	UpdatedAt           string            `json:"updated_at"`
	Encrypted           bool              `json:"encrypted"`
	ReplicationStatus   string            `json:"replication_status"`
	ExtendedStatus      string            `json:"os-volume-replication:extended_status"`
	Migstat             string            `json:"os-vol-mig-status-attr:migstat"`
	NameID              string            `json:"os-vol-mig-status-attr:name_id"`
	Shareable           string            `json:"shareable"`
	UserID              string            `json:"user_id"`
	ServiceType         string            `json:"service_type"`
	Multiattach         bool              `json:"multiattach"`
	Tags                map[string]string `json:"tags"`
	Sealdisk            VolumeExtra       `json:"sealdisk"`
}

// Link is empty in all replies: one daemon has one address.
type Link struct {
	Href string `json:"href,omitempty"`
	Rel  string `json:"rel,omitempty"`
}

// Attachment is where a volume is attached: always this host.
type Attachment struct {
	AttachedAt   string `json:"attached_at"`
	AttachmentID string `json:"attachment_id"`
	Device       string `json:"device"`
	HostName     string `json:"host_name"`
	ID           string `json:"id"`
	ServerID     string `json:"server_id"`
	VolumeID     string `json:"volume_id"`
}

// VolumeExtra is sealdisk's addition to Volume.
type VolumeExtra struct {
	SizeBytes    int64  `json:"size_bytes"`
	BlockSize    int    `json:"block_size"`
	SectorSize   int    `json:"sector_size,omitempty"`
	Discard      bool   `json:"discard"`
	Preallocated bool   `json:"preallocated,omitempty"`
	Holes        bool   `json:"holes"` // the header requires sealdisk until finalized
	Provider     string `json:"kms,omitempty"`
	KeyID        string `json:"key_id,omitempty"`
	Generation   uint64 `json:"generation,omitempty"` // lowest of the header that is accepted
	Reason       string `json:"reason,omitempty"`     // why the last create, attach or delete failed
	SyncFailed   string `json:"sync_failed,omitempty"`
	URI          string `json:"uri,omitempty"`         // while in use
	Connections  int    `json:"connections,omitempty"` // NBD clients of the disk now
	ReadOnly     bool   `json:"read_only,omitempty"`
	AttachUID    uint32 `json:"attach_uid,omitempty"`
	Wished       bool   `json:"wished,omitempty"`  // is to be attached, now or after a restart
	AtBoot       bool   `json:"at_boot,omitempty"` // after a reboot too
	KeyMemory    string `json:"key_memory,omitempty"`
	Task         string `json:"task,omitempty"` // type of the job that runs
	JobID        string `json:"job_id,omitempty"`
}

// VolumeResponse is the reply to GET /v2/{project}/cloudvolumes/{id}.
type VolumeResponse struct {
	Volume Volume `json:"volume"`
}

// VolumesResponse is the reply to GET /v2/{project}/cloudvolumes/detail. Count is
// of all that the filter lets through, not of the page.
type VolumesResponse struct {
	Count   int      `json:"count"`
	Volumes []Volume `json:"volumes"`
}

// Statuses of a Job; EVS's INIT does not occur.
const (
	JobRunning = "RUNNING"
	JobSuccess = "SUCCESS"
	JobFail    = "FAIL"
)

// Job is the reply to GET /v1/{project}/jobs/{id}.
type Job struct {
	Status     string      `json:"status"`
	Entities   JobEntities `json:"entities"`
	JobID      string      `json:"job_id"`
	JobType    string      `json:"job_type"`
	BeginTime  string      `json:"begin_time"`
	EndTime    string      `json:"end_time"`
	ErrorCode  string      `json:"error_code,omitempty"`
	FailReason string      `json:"fail_reason,omitempty"`
	// Class and Hint are sealdisk's additions.
	Class Class  `json:"class,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// JobEntities is what a job is about.
type JobEntities struct {
	VolumeType string `json:"volume_type,omitempty"`
	Size       int64  `json:"size,omitempty"` // GiB, rounded up
	VolumeID   string `json:"volume_id,omitempty"`
	Name       string `json:"name,omitempty"`
}

// TimeFormat is how EVS writes times, in UTC.
const TimeFormat = "2006-01-02T15:04:05.000000"
