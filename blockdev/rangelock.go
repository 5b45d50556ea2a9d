package blockdev

import "sync"

// RangeLock grants byte ranges, rounded out to granules, shared or exclusive,
// in order of arrival: a range waits for every earlier range that overlaps it
// if one of the two is exclusive. It never blocks the caller; whoever must wait
// is told through Range.Granted.
//
// The zero value is ready. All methods may be called concurrently. A Range
// belongs to the lock from Acquire to Release and to its caller otherwise, so
// that no allocation is needed.
type RangeLock struct {
	mu         sync.Mutex
	head, tail *Range // all ranges held or waiting, in order of arrival
}

// Range is one request for a range of bytes. One of length 0 conflicts with
// nothing.
type Range struct {
	Off, Len  int64
	Exclusive bool
	// Granted is called once, when a range that had to wait is granted, on the
	// goroutine that released the last range before it. It must not block and
	// may call the lock's methods.
	Granted func(*Range)

	lo, hi     int64
	waits      int // earlier conflicting ranges not yet released
	prev, next *Range
	granted    *Range // links those to be told by one Release
}

// Acquire queues r and reports whether it is granted at once. If not, r.Granted
// is called later.
func (l *RangeLock) Acquire(r *Range) bool {
	r.round()
	l.mu.Lock()
	r.waits = l.conflicts(r)
	l.append(r)
	ok := r.waits == 0
	l.mu.Unlock()
	return ok
}

// TryAcquire grants r at once and reports true, or reports false and does not
// queue it.
func (l *RangeLock) TryAcquire(r *Range) bool {
	r.round()
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.waits = l.conflicts(r); r.waits > 0 {
		return false
	}
	l.append(r)
	return true
}

// conflicts counts the queued ranges that r conflicts with.
func (l *RangeLock) conflicts(r *Range) int {
	n := 0
	for o := l.head; o != nil; o = o.next {
		if o.conflicts(r) {
			n++
		}
	}
	return n
}

func (l *RangeLock) append(r *Range) {
	r.prev, r.next, r.granted = l.tail, nil, nil
	if l.tail != nil {
		l.tail.next = r
	} else {
		l.head = r
	}
	l.tail = r
}

// Release ends r, granted or still waiting, and grants what waited for it
// alone. A waiting range that is released is not granted any more; the caller
// must know that Granted is not under way for it. Where it can't know, it calls
// Cancel.
func (l *RangeLock) Release(r *Range) {
	l.mu.Lock()
	tell := l.remove(r)
	l.mu.Unlock()
	tellGranted(tell)
}

// Cancel ends r if it is still waiting and reports true: Granted will not be
// called. False means that r was granted, that Granted has been or will be
// called if Acquire reported false, and that r must be released.
func (l *RangeLock) Cancel(r *Range) bool {
	l.mu.Lock()
	if r.waits == 0 {
		l.mu.Unlock()
		return false
	}
	tell := l.remove(r)
	l.mu.Unlock()
	tellGranted(tell)
	return true
}

// remove takes r out and returns those that it alone kept waiting, in order of
// arrival.
func (l *RangeLock) remove(r *Range) (tell *Range) {
	last := &tell
	for o := r.next; o != nil; o = o.next {
		if o.conflicts(r) {
			if o.waits--; o.waits == 0 {
				*last, last = o, &o.granted
			}
		}
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		l.head = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		l.tail = r.prev
	}
	r.prev, r.next = nil, nil
	return tell
}

func tellGranted(tell *Range) {
	for tell != nil {
		o := tell
		tell, o.granted = o.granted, nil
		o.Granted(o)
	}
}

func (r *Range) round() {
	r.lo, r.hi = Granules(r.Off, r.Len)
	if r.Len == 0 {
		r.lo, r.hi = 0, 0
	}
}

func (r *Range) conflicts(o *Range) bool {
	return r.lo < o.hi && o.lo < r.hi && (r.Exclusive || o.Exclusive)
}

// Granules rounds [off, off+length) out to whole granules and returns its first
// byte and the byte after its last.
func Granules(off, length int64) (lo, hi int64) {
	lo = off &^ (GranuleSize - 1)
	hi = (off + length + GranuleSize - 1) &^ (GranuleSize - 1)
	return lo, hi
}
