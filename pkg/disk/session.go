package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"sealdisk/blockdev"
	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/secmem"
	"sealdisk/xts"
)

// session is an open disk: its image (taken), key pages and device.
type session struct {
	image  *os.File
	header *luks2.Header   // nil if unencrypted
	region *secmem.Region  // nil if unencrypted
	device blockdev.Device // the plaintext
	crypt  *blockdev.Crypt // device, if encrypted
	uri    string          // set by Publish
}

func (s *session) keyMemory() secmem.Mode {
	if s.region == nil {
		return ""
	}
	return s.region.Mode()
}

// openSession opens the disk r: header against catalog, key from the KMS, and the
// header's digest and MAC with the key. It changes nothing but a damaged copy of
// the header. onSyncError is called once, before the request that fails is answered,
// if a sync of the image fails: the catalog must know of it even if this process
// is killed before the disk is detached.
func (m *Manager) openSession(ctx context.Context, r *Record, readOnly bool, onSyncError func(error)) (_ *session, err error) {
	s := &session{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	path := m.imagePath(r.ID)
	s.image, err = openImage(path, readOnly)
	if errors.Is(err, os.ErrNotExist) {
		return s, corrupt("restore the image from a backup", "disk %s: its image is missing (%s)", r.Name, path)
	}
	if err != nil {
		return s, err
	}
	st, err := s.image.Stat()
	if err != nil {
		return s, err
	}
	opt := blockdev.FileOptions{Size: r.Size, ReadOnly: readOnly, Discard: r.Discard, Preallocate: r.Preallocated,
		OnSyncError: onSyncError}
	if r.Encryption == nil {
		if err := checkImageSize(r, st.Size(), 0); err != nil {
			return s, err
		}
		file, err := m.openFile(path, opt)
		if err == nil {
			s.device = file
		}
		return s, err
	}
	if err := m.openKey(ctx, s, r, st.Size(), readOnly); err != nil {
		return s, err
	}
	opt.Offset = luks2.DataOffset
	file, err := m.openFile(path, opt)
	if err != nil {
		return s, err
	}
	s.device = file
	holes := mayHaveHoles(s.header)
	s.crypt, err = blockdev.NewCrypt(file, xts.New(s.region.Bytes()[:xts.ScheduleSize]),
		blockdev.CryptOptions{SectorSize: r.Encryption.SectorSize, Holes: holes, Discard: holes && r.Discard})
	if err != nil {
		return s, err
	}
	s.device = s.crypt
	return s, nil
}

// openKey checks the header and gets the key into s.region.
func (m *Manager) openKey(ctx context.Context, s *session, r *Record, size int64, readOnly bool) error {
	h, repair, err := readHeader(s.image, readOnly)
	if err != nil {
		return err
	}
	if repair != nil {
		m.log.Warn("a copy of the header can't be repaired", logfield.Disk(r.ID), logfield.Err(repair))
	}
	if err := checkHeader(r, h, size); err != nil {
		return err
	}
	s.header = h
	if s.region, err = secmem.Create(roundUp(xts.ScheduleSize, secmem.PageSize), m.secmem); err != nil {
		return err
	}
	return m.keys.Attach(ctx, h, s.region)
}

// close gives everything back; the key pages are zeroed. It reports a sync that failed.
func (s *session) close() error {
	var errs []error
	if s.device != nil {
		errs = append(errs, s.device.Close())
	}
	if s.region != nil {
		errs = append(errs, s.region.Destroy())
	}
	if s.image != nil {
		errs = append(errs, s.image.Close())
	}
	return errors.Join(errs...)
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }

// openFile is blockdev.OpenFile, with what a test puts in between.
func (m *Manager) openFile(path string, opt blockdev.FileOptions) (*blockdev.File, error) {
	st, err := blockdev.OpenStorage(path, opt.ReadOnly)
	if err != nil {
		return nil, err
	}
	if m.storage != nil {
		st = m.storage(st)
	}
	f, err := blockdev.NewFile(st, opt)
	if err != nil {
		st.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}
