package blockdev

import "syscall"

// nowMode is how ReadNow reads.
type nowMode uint8

const (
	nowNever  nowMode = iota // the file can't tell what is cached
	nowAsk                   // RWF_NOWAIT
	nowInline                // reads never wait
)

// probeNow finds out how the file answers RWF_NOWAIT. tmpfs refuses it, yet
// never waits for a disk; others that refuse it may.
func probeNow(st Storage, at int64) nowMode {
	var b [1]byte
	_, err := st.PreadNow(b[:], at)
	switch {
	case err == nil || err == syscall.EAGAIN:
		return nowAsk
	case st.Info().Memory:
		return nowInline
	}
	return nowNever
}

// ReadNow implements NowReader.
func (f *File) ReadNow(p []byte, off int64) error {
	if f.now == nowInline {
		return f.ReadAt(p, off)
	}
	if f.stop.Load()&stopClosed != 0 {
		return ErrClosed
	}
	if err := CheckRange(off, int64(len(p)), f.size); err != nil {
		return err
	}
	if f.now == nowNever {
		return ErrWouldBlock
	}
	// What was read in part, or failed, is for the blocking read to tell.
	if n, err := f.st.PreadNow(p, f.base+off); err != nil || n != len(p) {
		return ErrWouldBlock
	}
	return nil
}

// Extents implements Device.
func (f *File) Extents(dst []Extent, off, length int64, max int) ([]Extent, error) {
	if f.stop.Load()&stopClosed != 0 {
		return dst, ErrClosed
	}
	if err := CheckRange(off, length, f.size); err != nil {
		return dst, err
	}
	for given := 0; length > 0 && (given < max || given == 0); given++ {
		e := f.extent(off, length)
		dst = append(dst, e)
		off, length = off+e.Len, length-e.Len
	}
	return dst, nil
}

// extent is the first extent of [off, off+length). Where the file can't tell,
// and where it changes meanwhile, it is data.
func (f *File) extent(off, length int64) Extent {
	at, end := f.base+off, f.base+off+length
	e := Extent{Off: off, Len: length}
	data, err := f.st.SeekData(at)
	switch {
	case err == syscall.ENXIO:
		e.Hole, e.Zero = true, true
	case err != nil:
	case data > at:
		e.Hole, e.Zero = true, true
		e.Len = min(data, end) - at
	default:
		if hole, err := f.st.SeekHole(at); err == nil && hole > at {
			e.Len = min(hole, end) - at
		}
	}
	return e
}

// Cache implements Device.
func (f *File) Cache(off, length int64) error {
	if f.stop.Load()&stopClosed != 0 {
		return ErrClosed
	}
	if err := CheckRange(off, length, f.size); err != nil || length == 0 {
		return err // posix_fadvise takes length 0 for "to the end"
	}
	if err := f.st.WillNeed(f.base+off, length); err != nil && !unsupported(err) {
		return ioError("cache", f.base+off, int(length), err)
	}
	return nil
}
