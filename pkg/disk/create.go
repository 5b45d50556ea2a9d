package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"sealdisk/blockdev"
	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/logfield"
)

// CreateOptions describe a new disk.
type CreateOptions struct {
	Project     string
	Name        string
	Description string
	VolumeType  string
	Tags        map[string]string
	Size        int64  // bytes, a multiple of 4096
	Encrypted   bool   // for ever
	Key         string // id or alias; "" is the project's default key
	SectorSize  int    // of the encryption, bytes: 512 or 4096; 0 is 4096
	BlockSize   int    // logical, bytes: 512 or 4096; 0 is 512
	// NoDiscard: the disk is filled with encrypted zeros and never has holes, which hides
	// what is allocated. On an unencrypted disk TRIM does nothing.
	NoDiscard   bool
	Preallocate bool // reserve all storage now
}

func (o *CreateOptions) record() (*Record, error) {
	if o.BlockSize == 0 {
		o.BlockSize = 512
	}
	if o.SectorSize == 0 {
		o.SectorSize = 4096
	}
	r := &Record{
		Format: recordFormat, ID: uuid.NewString(), Project: o.Project, Name: o.Name,
		Description: o.Description, VolumeType: o.VolumeType, Tags: maps.Clone(o.Tags),
		Size: o.Size, BlockSize: o.BlockSize, Discard: !o.NoDiscard, Preallocated: o.Preallocate,
	}
	if err := checkName(o.Name); err != nil {
		return nil, err
	}
	if err := checkDescription(o.Description); err != nil {
		return nil, err
	}
	if !projectPattern.MatchString(o.Project) {
		return nil, usage(api.CodeProject, "", "bad project %q", o.Project)
	}
	if err := checkSize(o.Size); err != nil {
		return nil, err
	}
	if !validSector(o.BlockSize) {
		return nil, usage(api.CodeBadRequest, "", "the block size is 512 or 4096 bytes, not %d", o.BlockSize)
	}
	if !o.Encrypted {
		if o.Key != "" {
			return nil, usage(api.CodeEncryption, "", "a key for a disk that is not to be encrypted")
		}
		return r, nil
	}
	if !validSector(o.SectorSize) {
		return nil, usage(api.CodeBadRequest, "", "the sector size is 512 or 4096 bytes, not %d", o.SectorSize)
	}
	r.Encryption = &Encryption{SectorSize: o.SectorSize, Holes: !o.NoDiscard}
	return r, nil
}

// newHeader describes the disk to the KeyFetcher, which seals it.
func newHeader(r *Record) *luks2.Header {
	h := &luks2.Header{
		UUID: r.ID, Label: r.Name[:min(len(r.Name), maxLabel)],
		SectorSize: r.Encryption.SectorSize, DataOffset: luks2.DataOffset,
		Token: luks2.Token{DiskID: r.ID, Project: r.Project, Generation: 1},
	}
	if r.Encryption.Holes {
		h.Requirements = []string{luks2.RequirementHoles}
	}
	return h
}

// maxLabel is the longest label of a LUKS2 header, bytes.
const maxLabel = 47

// Create makes a disk. It returns when the key is made and the disk is in the
// catalog; the image is made by the job. A key that can't be used, or a missing agency, leaves
// nothing behind; a job that fails leaves the disk in state error with the reason.
func (m *Manager) Create(ctx context.Context, o CreateOptions) (Job, error) {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return Job{}, err
	}
	defer end()
	r, err := o.record()
	if err != nil {
		return Job{}, err
	}
	e, err := m.add(r)
	if err != nil {
		return Job{}, err
	}
	doing := "create disk " + r.Name
	var header *luks2.Header
	if o.Encrypted {
		header, err = m.keys.Create(ctx, newHeader(r), o.Key)
		if errors.Is(err, kms.ErrNotFound) {
			err = &api.Error{Class: api.ClassNotFound, Code: api.CodeKeyMissing, Message: fmt.Sprintf("key %q does not exist", o.Key),
				Hint: "sealdisk key list shows the keys", Err: err}
		}
		if err != nil {
			m.forget(r.ID)
			m.log.Warn("no key for a new disk", logfield.Project(r.Project), logfield.Err(err))
			return Job{}, apiError(doing, err, r)
		}
	}
	now := m.now()
	r, err = m.move(e, evCreate, func(r *Record) error {
		r.Created, r.Job = now, newJob(JobCreate, r, now)
		if header != nil {
			r.Encryption.Provider, r.Encryption.KeyID = header.Token.Provider, header.Token.KeyID
			r.Encryption.MinGeneration = header.Token.Generation
		}
		return nil
	})
	if err != nil {
		m.forget(r.ID)
		return Job{}, apiError(doing, err, r)
	}
	job := *r.Job
	if !m.background(func(ctx context.Context) {
		m.finishCreate(ctx, e, func() error { return m.buildImage(ctx, r, header) })
	}) {
		return Job{}, apiError(doing, context.Canceled, r)
	}
	return job, nil
}

// finishCreate runs what makes a disk's image and settles the job.
func (m *Manager) finishCreate(ctx context.Context, e *entry, build func() error) {
	err := build()
	if err == nil {
		_, err = m.move(e, evCreated, func(r *Record) error {
			r.Adopted, r.Job = false, r.Job.ended(nil, m.now())
			return nil
		})
	}
	r := e.record.Load()
	if err == nil {
		m.log.Info("created", logfield.Disk(r.ID), logfield.Bytes(r.Size))
		return
	}
	if ctx.Err() != nil {
		return // the daemon stops: Recover cleans up
	}
	m.log.Error("creation failed", logfield.Disk(r.ID), logfield.Err(err))
	if !r.Adopted {
		err = errors.Join(err, m.removeImage(r.ID))
	}
	failed := apiError("create disk "+r.Name, err, r)
	if r.Job.Type == JobImport && m.removeRecord(e, evAbandoned) == nil { // it exists elsewhere
		m.jobs.put(r.Job.ended(failed, m.now()))
		return
	}
	m.settle(e, evCreateFailed, func(r *Record) {
		r.Reason, r.Job = failed.Message, r.Job.ended(failed, m.now())
	})
}

// buildImage makes the image of r, durable with its directories. header is nil for an
// unencrypted disk.
func (m *Manager) buildImage(ctx context.Context, r *Record, header *luks2.Header) error {
	f, err := m.newImage(r.ID)
	if err != nil {
		return err
	}
	defer f.Close()
	size := r.Size
	if header != nil {
		size += luks2.DataOffset
	}
	m.step("create: size image")
	if err := f.Truncate(size); err != nil {
		return err
	}
	if r.Preallocated {
		if err := reserve(ctx, f, size); err != nil {
			return fmt.Errorf("reserve the storage: %w", err)
		}
	}
	if header != nil {
		m.step("create: write header")
		if err := luks2.Format(f, header); err != nil {
			return err
		}
	}
	m.step("create: sync image")
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil { // openSession takes it itself
		return err
	}
	if header != nil && !r.Encryption.Holes {
		return m.fill(ctx, r)
	}
	return nil
}

// newImage makes the disk's directory and an empty image, both durable.
func (m *Manager) newImage(id string) (*os.File, error) {
	dir := m.imageDir(id)
	m.step("create: make directory")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	m.step("create: make image")
	f, err := os.OpenFile(m.imagePath(id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// reserve allocates the first size bytes of f.
func reserve(ctx context.Context, f *os.File, size int64) error {
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(size-off, 1<<30)
		switch err := unix.Fallocate(int(f.Fd()), 0, off, n); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		}
		off += n
	}
	return nil
}

// fill writes encrypted zeros over the whole disk.
func (m *Manager) fill(ctx context.Context, r *Record) error {
	s, err := m.openSession(ctx, r, false, func(error) {}) // FillHoles reports it
	if err != nil {
		return err
	}
	m.step("create: fill")
	err = blockdev.FillHoles(ctx, s.crypt, nil)
	return errors.Join(err, s.close())
}

// removeImage removes what there is of a disk's directory, the header
// first. What is not there is no error.
func (m *Manager) removeImage(id string) error {
	dir, path := m.imageDir(id), m.imagePath(id)
	f, err := openImage(path, false)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		defer f.Close()
		m.step("delete: wipe header")
		if err := wipe(f, luks2.DataOffset); err != nil {
			return fmt.Errorf("wipe the header: %w", err)
		}
		m.step("delete: remove image")
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	m.step("delete: remove directory")
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}
