package blockdev

import "sync"

// Serialize returns d behind a RangeLock of its own, for callers that do not
// bring one: its methods may be called concurrently without any exclusion.
// Calls on overlapping granules wait for each other in order of arrival, reads
// among themselves apart. ReadNow does not wait: it returns ErrWouldBlock.
func Serialize(d Device) Device {
	s := &serialized{Device: d}
	s.now, _ = d.(NowReader)
	s.turns.New = newTurn
	return s
}

type serialized struct {
	Device
	now   NowReader
	lock  RangeLock
	turns sync.Pool
}

// turn is a Range whose owner waits on a channel.
type turn struct {
	Range
	granted chan struct{}
}

func newTurn() any {
	t := &turn{granted: make(chan struct{}, 1)}
	t.Granted = func(*Range) { t.granted <- struct{}{} }
	return t
}

func (s *serialized) acquire(off, length int64, exclusive bool) *turn {
	t := s.turns.Get().(*turn)
	t.Off, t.Len, t.Exclusive = off, length, exclusive
	if !s.lock.Acquire(&t.Range) {
		<-t.granted
	}
	return t
}

func (s *serialized) release(t *turn) {
	s.lock.Release(&t.Range)
	s.turns.Put(t)
}

func (s *serialized) ReadAt(p []byte, off int64) error {
	if err := CheckRange(off, int64(len(p)), s.Size()); err != nil {
		return err
	}
	t := s.acquire(off, int64(len(p)), false)
	defer s.release(t)
	return s.Device.ReadAt(p, off)
}

// ReadNow implements NowReader.
func (s *serialized) ReadNow(p []byte, off int64) error {
	if err := CheckRange(off, int64(len(p)), s.Size()); err != nil {
		return err
	}
	if s.now == nil {
		return ErrWouldBlock
	}
	t := s.turns.Get().(*turn)
	t.Off, t.Len, t.Exclusive = off, int64(len(p)), false
	if !s.lock.TryAcquire(&t.Range) {
		s.turns.Put(t)
		return ErrWouldBlock
	}
	defer s.release(t)
	return s.now.ReadNow(p, off)
}

func (s *serialized) WriteAt(p []byte, off int64, f Flags) error {
	if err := CheckRange(off, int64(len(p)), s.Size()); err != nil {
		return err
	}
	t := s.acquire(off, int64(len(p)), true)
	defer s.release(t)
	return s.Device.WriteAt(p, off, f)
}

func (s *serialized) Trim(off, length int64, f Flags) error {
	if err := CheckRange(off, length, s.Size()); err != nil {
		return err
	}
	t := s.acquire(off, length, true)
	defer s.release(t)
	return s.Device.Trim(off, length, f)
}

func (s *serialized) WriteZeroes(off, length int64, f Flags) error {
	if err := CheckRange(off, length, s.Size()); err != nil {
		return err
	}
	t := s.acquire(off, length, true)
	defer s.release(t)
	return s.Device.WriteZeroes(off, length, f)
}

// SyncErr implements SyncReporter.
func (s *serialized) SyncErr() error {
	if r, ok := s.Device.(SyncReporter); ok {
		return r.SyncErr()
	}
	return nil
}
