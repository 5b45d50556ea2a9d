package api

import "time"

// AttachRequest is the body of POST /sealdisk/v1/{project}/disks/{id}/attach.
// The socket belongs to whoever asks.
type AttachRequest struct {
	ReadOnly       bool `json:"read_only,omitempty"`
	AtBoot         bool `json:"at_boot,omitempty"`          // attach again after a reboot too
	AcceptDataLoss bool `json:"accept_data_loss,omitempty"` // attach though a sync failed earlier
}

// AttachResponse is its reply.
type AttachResponse struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	URI       string `json:"uri"` // nbd+unix:///NAME?socket=PATH
	BlockSize int    `json:"block_size"`
	ReadOnly  bool   `json:"read_only,omitempty"`
	KeyMemory string `json:"key_memory,omitempty"` // memfd_secret or mlock; empty if unencrypted
}

// ImportRequest is the body of POST /sealdisk/v1/{project}/disks/import.
type ImportRequest struct {
	Path        string `json:"path"` // absolute, on the daemon's host: an image or a disk's directory
	Name        string `json:"name,omitempty"`
	Unencrypted bool   `json:"unencrypted,omitempty"` // raw data without a header
	BlockSize   int    `json:"block_size,omitempty"`
}

// Empty is a body without anything.
type Empty struct{}

// Status is the reply to GET /sealdisk/v1/status.
type Status struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Started   time.Time `json:"started"`
	RunDir    string    `json:"run_dir"`
	StateDir  string    `json:"state_dir"`
	KeyMemory string    `json:"key_memory"` // memfd_secret, mlock, or why neither
	Cipher    string    `json:"cipher"`     // tier of the AES-XTS code
	// Disks counts them by state.
	Disks map[string]int `json:"disks"`
	// Broken names catalog entries that can't be used, and why.
	Broken      map[string]string `json:"broken,omitempty"`
	Connections int               `json:"connections"` // NBD clients
	KMS         KMSHealth         `json:"kms"`
	KeysFetched uint64            `json:"keys_fetched"` // key children that answered
	Processes   Processes         `json:"processes"`
	Warnings    []string          `json:"warnings,omitempty"`
}

// Processes says which processes a daemon has. The numbers are process ids, 0
// for none, and counts.
type Processes struct {
	Launcher       int `json:"launcher"`
	KMS            int `json:"kms"` // the embedded one
	Engine         int `json:"engine"`
	KMSRestarts    int `json:"kms_restarts"`
	EngineRestarts int `json:"engine_restarts"`
	Fetching       int `json:"fetching"` // key children that run now
}

// KMSHealth says whether the KMS can be reached. It is not the daemon's
// health: attached disks don't need the KMS.
type KMSHealth struct {
	Socket    string `json:"socket"`
	Embedded  bool   `json:"embedded"`
	Reachable bool   `json:"reachable"`
	Reason    string `json:"reason,omitempty"`
}
