package nbdserver

import "sealdisk/pkg/nbd"

// fate says what becomes of a connection's requests.
//
// A kernel that loses a connection replays its requests on another one. What
// the first one still had waiting must not run any more: it could overwrite newer data
// (design §5). So a change runs only if, with its granules held, the client
// is still there, or if the client took its leave with DISC. Is the client gone while the
// reader has not yet reached the end of the stream, nobody knows which; the change then
// waits in limbo, granules held, until the reader knows.
type fate int32

const (
	fateAlive   fate = iota // the reader reads on
	fateDisc                // the stream ended in DISC: everything runs
	fateClosing             // the server stopped reading: everything runs while the client is there
	fateDead                // the stream broke off: nothing runs that has not begun
)

// maxLeftover bounds what is read of a stream whose client is gone, in bytes;
// if it is longer it counts as broken off.
const maxLeftover = 16 << 20

// mayRun reports whether r may run. If not, r is gone or in limbo.
func (c *conn) mayRun(r *request, p *prober) bool {
	switch f := fate(c.fate.Load()); {
	case f == fateDisc:
		return true
	case f == fateDead:
		c.drop(r)
		return false
	case !r.changes() || !c.s.hungUp(p):
		return true
	}
	c.mu.Lock()
	f := fate(c.fate.Load())
	if f == fateAlive {
		r.next, c.limbo = c.limbo, r
		c.hung.Store(true)
		c.mu.Unlock()
		c.wakeReader()
		return false
	}
	c.mu.Unlock()
	if f == fateDisc {
		return true
	}
	c.drop(r)
	return false
}

// setFate settles the connection's fate, once, and with it what is in limbo.
// Later it can only become dead.
func (c *conn) setFate(f fate) {
	c.mu.Lock()
	if old := fate(c.fate.Load()); old == fateDead || old != fateAlive && f != fateDead {
		c.mu.Unlock()
		return
	}
	c.fate.Store(int32(f))
	list := c.limbo
	c.limbo = nil
	c.mu.Unlock()
	for list != nil {
		r := list
		list = r.next
		c.disk.push(r) // to ask mayRun again
	}
}

// foresee is called by the reader before it waits for anything but the
// client. If the client is gone it reads what is left, after skip bytes of payload, to
// learn the connection's fate now: limbo holds granules that others wait for.
func (c *conn) foresee(skip int64) {
	if !c.hung.Load() || fate(c.fate.Load()) != fateAlive {
		return
	}
	if c.in.slurp(maxLeftover) && endsInDisc(c.in.buf[c.in.r:c.in.w], skip) {
		c.setFate(fateDisc)
		return
	}
	c.setFate(fateDead)
}

// endsInDisc reports whether b, after skip bytes, is a run of whole requests
// up to a DISC.
func endsInDisc(b []byte, skip int64) bool {
	var h nbd.RequestHeader
	for {
		if skip > int64(len(b)) {
			return false
		}
		if b = b[skip:]; len(b) < nbd.RequestHeaderSize {
			return false
		}
		nbd.GetRequestHeader(b, &h)
		if h.RequestMagic != nbd.MagicRequest {
			return false
		}
		skip = nbd.RequestHeaderSize
		switch nbd.Command(h.Type) {
		case nbd.CmdDisc:
			return true
		case nbd.CmdWrite:
			skip += int64(h.Length)
		}
	}
}
