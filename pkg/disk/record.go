package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"sealdisk/pkg/api"
)

// recordFormat is the version of the records that this program writes.
//
// Upgrade policy: a reader takes every format from 1 to its own and rewrites a
// record in its own format at the next change. It refuses a newer one, since a
// field it does not know may be what forbids an operation. A new format is
// needed whenever an older program would do harm by not knowing a field; as
// unknown fields are refused too, a field never appears within a format.
const recordFormat = 1

// Record is what the catalog knows of a disk. It is authoritative: a header
// beside the data that disagrees is refused. A Record is not changed once it is stored.
type Record struct {
	Format      int               `json:"format"`
	ID          string            `json:"id"` // UUID, also of the LUKS2 container
	Project     string            `json:"project"`
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	VolumeType  string            `json:"volume_type,omitempty"` // EVS: stored, without effect
	Tags        map[string]string `json:"tags,omitempty"`        // EVS: stored, without effect
	Created     time.Time         `json:"created"`
	Updated     time.Time         `json:"updated"`

	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"` // of an error state, or of the last failed attach

	Size      int64 `json:"size"`       // exported bytes, a multiple of 4096
	BlockSize int   `json:"block_size"` // logical, bytes: 512 or 4096
	Discard   bool  `json:"discard"`    // TRIM gives storage back
	// Preallocated: storage is reserved, and zeroing keeps it.
	Preallocated bool `json:"preallocated,omitempty"`

	// Encryption is nil for an unencrypted disk. That never changes, nor does
	// the key, after the disk was created.
	Encryption *Encryption `json:"encryption,omitempty"`

	// SyncFailed tells of a sync that failed while the disk was attached: data may be
	// lost, and the next attach must accept that.
	SyncFailed *SyncFailure `json:"sync_failed,omitempty"`
	// Wish is the wish to be attached, nil if there is none.
	Wish *Wish `json:"wish,omitempty"`
	// Job is the last job on the disk.
	Job *Job `json:"job,omitempty"`
	// Adopted: the image stood in its place before the disk was imported, so
	// that an import which fails must leave it there.
	Adopted bool `json:"adopted,omitempty"`
}

// Encryption is what must be true of an encrypted disk's header.
type Encryption struct {
	Provider string `json:"provider,omitempty"` // of the key, empty only while creating
	KeyID    string `json:"key_id,omitempty"`   // resolved, empty only while creating
	// MinGeneration is the lowest generation of the header that is accepted: an older
	// header was put back by somebody.
	MinGeneration uint64 `json:"min_generation"`
	SectorSize    int    `json:"sector_size"` // bytes: 512 or 4096
	// Holes: the data may have holes, which read as zeros; the header
	// carries the requirement. False once finalized or made with discard off.
	Holes bool `json:"holes"`
}

// SyncFailure says when and how a sync failed.
type SyncFailure struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// Wish is the wish to be attached: after a restart of the daemon in the same
// boot, or after any if AtBoot, the disk is attached again for the same user.
type Wish struct {
	BootID   string    `json:"boot_id"`
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	ReadOnly bool      `json:"read_only,omitempty"`
	AtBoot   bool      `json:"at_boot,omitempty"`
	Since    time.Time `json:"since"`
}

// ErrRecord is returned for a catalog entry that is damaged, of a newer
// format, or contradicts itself.
var ErrRecord = errors.New("bad catalog entry")

// parseRecord reads a record strictly: no unknown field, nothing behind it, all
// values within their ranges.
func parseRecord(b []byte) (*Record, error) {
	var v struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if v.Format < 1 || v.Format > recordFormat {
		return nil, fmt.Errorf("%w: format %d, this program knows 1 to %d: a newer sealdisk wrote it", ErrRecord, v.Format, recordFormat)
	}
	r := new(Record)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows it", ErrRecord)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return r, nil
}

// encode is the inverse of parseRecord.
func (r *Record) encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

func (r *Record) check() error {
	switch {
	case !validID(r.ID):
		return fmt.Errorf("id %q is no UUID", r.ID)
	case !projectPattern.MatchString(r.Project):
		return fmt.Errorf("bad project %q", r.Project)
	case checkName(r.Name) != nil:
		return fmt.Errorf("bad name %q", r.Name)
	case !r.State.known():
		return fmt.Errorf("unknown state %q", r.State)
	case checkSize(r.Size) != nil:
		return fmt.Errorf("bad size %d", r.Size)
	case !validSector(r.BlockSize):
		return fmt.Errorf("bad block size %d", r.BlockSize)
	}
	if e := r.Encryption; e != nil {
		switch {
		case !validSector(e.SectorSize):
			return fmt.Errorf("bad sector size %d", e.SectorSize)
		case (e.KeyID == "" || e.MinGeneration == 0) && r.State.hasImage():
			return errors.New("encrypted without a key or a generation")
		}
	}
	if j := r.Job; j != nil && (j.ID == "" || j.DiskID != r.ID) {
		return errors.New("a job of another disk")
	}
	return nil
}

// clone returns a deep copy to change and store.
func (r *Record) clone() *Record {
	c := *r
	c.Tags = maps.Clone(r.Tags)
	c.Encryption = copyOf(r.Encryption)
	c.SyncFailed = copyOf(r.SyncFailed)
	c.Wish = copyOf(r.Wish)
	c.Job = copyOf(r.Job)
	return &c
}

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

const (
	maxName        = 64
	maxDescription = 255 // bytes, as in EVS
	// sizeUnit is what every size is a multiple of, in bytes.
	sizeUnit = 4096
	// maxSize is EVS's limit of a data disk, 32,768 GiB.
	maxSize = 32768 << 30
)

var (
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	projectPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
)

// checkName: a name is part of export names and URIs, and must not be taken for a
// path or an id.
func checkName(name string) error {
	switch {
	case name == "":
		return usage(api.CodeVolumeName, nameHint, "the disk's name is empty")
	case len(name) > maxName:
		return usage(api.CodeVolumeName, nameHint, "the disk's name has %d characters, at most %d are allowed", len(name), maxName)
	case !namePattern.MatchString(name):
		return usage(api.CodeVolumeName, nameHint, "bad disk name %q", name)
	case validID(name):
		return usage(api.CodeVolumeName, nameHint, "the name %q looks like an id", name)
	}
	return nil
}

const nameHint = "a name is 1 to 64 letters, digits, '.', '_' and '-', begins with a letter or digit, and is no UUID"

// checkDescription: it is shown on terminals.
func checkDescription(s string) error {
	if len(s) > maxDescription || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return usage(api.CodeVolumeDescription, "", "a description has at most %d bytes, all of them printable", maxDescription)
	}
	return nil
}

func checkSize(size int64) error {
	switch {
	case size <= 0 || size%sizeUnit != 0:
		return usage(api.CodeVolumeSize, "", "the size %d is not a positive multiple of %d bytes", size, sizeUnit)
	case size > maxSize:
		return usage(api.CodeVolumeSize, "", "the size is above %d GiB", maxSize>>30)
	}
	return nil
}

func validSector(n int) bool { return n == 512 || n == 4096 }

// validID accepts only the canonical form, since an id becomes a path.
func validID(s string) bool {
	u, err := uuid.Parse(s)
	return err == nil && u.String() == s
}
