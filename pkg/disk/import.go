package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/secmem"
	"sealdisk/xts"
)

// ImportOptions say what to import.
type ImportOptions struct {
	Project string
	// Path of an image, or of a disk's directory with a disk.img in it. A directory that stands
	// in its place below the state directory is adopted, anything else is copied.
	Path string
	Name string // "" is the name in the header
	// Unencrypted: the image is raw data without a header. Without this demand such an
	// image is refused, since a lost header looks the same.
	Unencrypted bool
	BlockSize   int // logical, bytes; 0 is 512
}

// Import takes a copied disk into the catalog. Its header must be whole, the KMS must be
// reachable and have its key, and the key must fit header and MAC. The catalog believes
// this header from then on: an older one is refused.
func (m *Manager) Import(ctx context.Context, o ImportOptions) (Job, error) {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return Job{}, err
	}
	defer end()
	job, err := m.importDisk(ctx, o)
	if err != nil {
		return Job{}, apiError("import "+o.Path, err, &Record{Project: o.Project})
	}
	return job, nil
}

func (m *Manager) importDisk(ctx context.Context, o ImportOptions) (Job, error) {
	src, err := openSource(o.Path)
	if err != nil {
		return Job{}, err
	}
	started := false
	defer func() {
		if !started {
			src.Close()
		}
	}()
	r, err := m.importRecord(ctx, o, src)
	if err != nil {
		return Job{}, err
	}
	if r.Adopted, err = m.inPlace(src, r.ID); err != nil {
		return Job{}, err
	}
	e, err := m.add(r)
	if err != nil {
		return Job{}, err
	}
	now := m.now()
	r, err = m.move(e, evCreate, func(r *Record) error {
		r.Created, r.Job = now, newJob(JobImport, r, now)
		return nil
	})
	if err != nil {
		m.forget(r.ID)
		return Job{}, err
	}
	job := *r.Job
	started = m.background(func(ctx context.Context) {
		defer src.Close()
		m.finishCreate(ctx, e, func() error {
			if r.Adopted {
				return src.Sync()
			}
			return m.copyImage(ctx, r, src)
		})
	})
	if !started {
		return Job{}, context.Canceled
	}
	return job, nil
}

// openSource opens and takes the image at path, a file or a directory.
func openSource(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, usage(api.CodeBadRequest, "the path is the daemon's: give it from the root on", "%q is not an absolute path", path)
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		path = filepath.Join(path, imageName)
	}
	return openImage(path, true)
}

// importRecord makes the record of what src holds, after asking the KMS.
func (m *Manager) importRecord(ctx context.Context, o ImportOptions, src *os.File) (*Record, error) {
	st, err := src.Stat()
	if err != nil {
		return nil, err
	}
	if o.BlockSize == 0 {
		o.BlockSize = 512
	}
	if !validSector(o.BlockSize) {
		return nil, usage(api.CodeBadRequest, "", "the block size is 512 or 4096 bytes, not %d", o.BlockSize)
	}
	h, _, err := luks2.Read(src)
	r := &Record{Format: recordFormat, Project: o.Project, Name: o.Name, BlockSize: o.BlockSize, Discard: true}
	switch {
	case o.Unencrypted && errors.Is(err, luks2.ErrNotLUKS2):
		r.ID = uuid.NewString()
		r.Size = (st.Size() + sizeUnit - 1) / sizeUnit * sizeUnit // padded with zeros
	case o.Unencrypted:
		return nil, usage(api.CodeBadRequest, "leave out --unencrypted", "%s has a LUKS2 header", src.Name())
	case err != nil:
		return nil, err
	default:
		if err := m.importHeader(ctx, r, h, st.Size()); err != nil {
			return nil, err
		}
	}
	if err := checkName(r.Name); err != nil {
		return nil, err
	}
	return r, checkSize(r.Size)
}

// importHeader fills r from h and proves with the key that h is genuine.
func (m *Manager) importHeader(ctx context.Context, r *Record, h *luks2.Header, size int64) error {
	if h.Token.Project != r.Project {
		return usage(api.CodeBadRequest, "import it with --project "+h.Token.Project, "the disk belongs to project %s", h.Token.Project)
	}
	if r.Name == "" {
		r.Name = h.Label
	}
	r.ID, r.Size = h.UUID, h.DataSize
	if r.Size == 0 {
		r.Size = size - h.DataOffset
	}
	holes := mayHaveHoles(h)
	r.Discard = holes
	r.Encryption = &Encryption{Provider: h.Token.Provider, KeyID: h.Token.KeyID,
		MinGeneration: h.Token.Generation, SectorSize: h.SectorSize, Holes: holes}
	if err := checkHeader(r, h, size); err != nil {
		return err
	}
	region, err := secmem.Create(roundUp(xts.ScheduleSize, secmem.PageSize), m.secmem)
	if err != nil {
		return err
	}
	return errors.Join(m.keys.Attach(ctx, h, region), region.Destroy())
}

// inPlace reports whether src is where the image of disk id belongs. What
// stands there and is something else is in the way.
func (m *Manager) inPlace(src *os.File, id string) (bool, error) {
	there, err := os.Stat(m.imagePath(id))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(m.imageDir(id)); err == nil {
			return false, conflict("move it away first", "%s is in the way", m.imageDir(id))
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	st, err := src.Stat()
	if err != nil {
		return false, err
	}
	if !os.SameFile(st, there) {
		return false, conflict("move it away, or import it", "%s is in the way", m.imagePath(id))
	}
	return true, nil
}

// copyImage copies src to its place, durable with its directories. Holes stay holes.
func (m *Manager) copyImage(ctx context.Context, r *Record, src *os.File) error {
	dst, err := m.newImage(r.ID)
	if err != nil {
		return err
	}
	defer dst.Close()
	size := r.Size
	if r.Encryption != nil {
		size += luks2.DataOffset
	}
	m.step("import: copy")
	if err := copySparse(ctx, dst, src); err != nil {
		return fmt.Errorf("copy %s: %w", src.Name(), err)
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	if r.Encryption != nil {
		if err := luks2.Repair(dst); err != nil {
			return err
		}
	}
	m.step("import: sync image")
	return dst.Sync()
}

// copySparse copies the data of src and none of its holes.
func copySparse(ctx context.Context, dst, src *os.File) error {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil // the file system shares the storage
	}
	for off := int64(0); ; {
		from, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		to, err := unix.Seek(int(src.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if off, err = copyRange(ctx, dst, src, from, min(to, from+64<<20)); err != nil {
			return err
		}
	}
}

func copyRange(ctx context.Context, dst, src *os.File, from, to int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return from, err
	}
	n, err := io.Copy(io.NewOffsetWriter(dst, from), io.NewSectionReader(src, from, to-from))
	if err == nil && n < to-from {
		err = io.ErrUnexpectedEOF
	}
	return from + n, err
}
