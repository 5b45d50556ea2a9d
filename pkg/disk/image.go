package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
)

// openImage opens a disk's image for its header and takes it: nobody else (another
// daemon, an offline finalize) takes it until the file is closed.
func openImage(path string, readOnly bool) (*os.File, error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := takeImage(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func takeImage(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return usage(api.CodeBadRequest, "", "%s is not a regular file", f.Name())
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		lock.Type = unix.F_RDLCK
	}
	// The first lock keeps out other daemons and qemu. cryptsetup takes the second kind
	// while it works on a header: shared, it may dump an attached disk but not change it.
	if err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	}
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return conflict("detach the disk first", "%s is in use by another process", f.Name())
	case err != nil:
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// readHeader reads the header of f and repairs a copy that is damaged or
// stale. A repair that fails is no reason to refuse a disk that opens: it is returned
// in repair.
func readHeader(f *os.File, readOnly bool) (h *luks2.Header, repair, err error) {
	h, cond, err := luks2.Read(f)
	if err != nil {
		return nil, nil, err
	}
	if !cond.Healthy() && !readOnly {
		repair = luks2.Repair(f)
	}
	return h, repair, nil
}

// checkHeader compares a header with what the catalog says: the header can be
// exchanged together with the data, the catalog can't. size is the image's. That the header
// was not changed without the key is checked by its MAC later.
func checkHeader(r *Record, h *luks2.Header, size int64) error {
	e := r.Encryption
	want := func(what string, got, want any) error {
		return corrupt("somebody exchanged the header, or the image is of another disk: restore both from a backup",
			"disk %s: the header's %s is %v, the catalog says %v", r.Name, what, got, want)
	}
	switch {
	case h.UUID != r.ID:
		return want("UUID", h.UUID, r.ID)
	case h.Token.DiskID != r.ID:
		return want("disk id", h.Token.DiskID, r.ID)
	case h.Token.Project != r.Project:
		return want("project", h.Token.Project, r.Project)
	case h.Token.Provider != e.Provider:
		return want("KMS", h.Token.Provider, e.Provider)
	case h.Token.KeyID != e.KeyID:
		return want("key", h.Token.KeyID, e.KeyID)
	case h.Token.Generation < e.MinGeneration:
		return want("generation", h.Token.Generation, fmt.Sprintf("at least %d", e.MinGeneration))
	case h.SectorSize != e.SectorSize:
		return want("sector size", h.SectorSize, e.SectorSize)
	case h.DataOffset != luks2.DataOffset:
		return want("data offset", h.DataOffset, luks2.DataOffset)
	case h.DataSize != 0 && h.DataSize != r.Size:
		return want("size", h.DataSize, r.Size)
	}
	// A finalize that was cut between header and catalog leaves a newer header
	// without the requirement. The other way round never happens.
	holes := mayHaveHoles(h)
	if holes != e.Holes && (holes || h.Token.Generation == e.MinGeneration) {
		return want("requirement "+luks2.RequirementHoles, holes, e.Holes)
	}
	return checkImageSize(r, size, luks2.DataOffset)
}

func checkImageSize(r *Record, size, offset int64) error {
	switch need := offset + r.Size; {
	case size < need:
		return corrupt("restore the image from a backup: it was truncated", "disk %s: the image has %d bytes, %d are missing", r.Name, size, need-size)
	case size > need:
		return corrupt("truncate the image to its size if that was an accident", "disk %s: the image has %d bytes, %d too many", r.Name, size, size-need)
	}
	return nil
}

func mayHaveHoles(h *luks2.Header) bool {
	return slices.Contains(h.Requirements, luks2.RequirementHoles)
}

// wipe overwrites the first n bytes of f with zeros where they are not zero
// already, which needs no new storage on most file systems, and syncs.
func wipe(f *os.File, n int64) error {
	buf, zeros := make([]byte, 64<<10), make([]byte, 4096)
	for off := int64(0); off < n; off += int64(len(buf)) {
		k, err := f.ReadAt(buf[:min(int64(len(buf)), n-off)], off)
		if err != nil && err != io.EOF {
			return err
		}
		for i := 0; i < k; i += len(zeros) {
			piece := buf[i:min(i+len(zeros), k)]
			if slices.Equal(piece, zeros[:len(piece)]) {
				continue
			}
			if _, err := f.WriteAt(zeros[:len(piece)], off+int64(i)); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
	}
	return f.Sync()
}
