package nbdserver

import (
	"unsafe"

	"sealdisk/blockdev"
	"sealdisk/pkg/nbd"
)

// request is one request from its header to its reply. Requests belong to
// their connection, are made a slab at a time and used again. At any time one of these holds it: the
// reader, the range lock (waiting), the disk's queue, a worker, the connection's limbo,
// its replies or its free list; whoever takes it over may change it.
type request struct {
	rng    blockdev.Range // first: granted finds the request by it
	locked bool           // rng was given to the range lock

	c    *conn
	next *request // in whatever list holds it

	hdr    nbd.RequestHeader
	pieces []piece // payload of a WRITE, data of a reply
	first  [1]piece
	held   int64 // bytes reserved for them

	head  [maxHead]byte // the reply's header
	nhead int
	data  bool // the pieces follow the header
}

// slab is how many requests are made at a time.
const slab = 32

// makeRequests returns a list of n requests of c.
func makeRequests(c *conn, n int) (list *request) {
	all := make([]request, n)
	for i := range all {
		r := &all[i]
		r.c, r.next, r.rng.Granted = c, list, granted
		r.pieces = r.first[:0]
		list = r
	}
	return list
}

// granted gives the request of rng, which had to wait for its granules, to the workers. It is
// one function for all requests, so that they need none of their own.
func granted(rng *blockdev.Range) {
	r := (*request)(unsafe.Pointer(rng))
	r.c.disk.push(r)
}

// maxMessage bounds the text of an error reply, in bytes.
const (
	maxMessage = 64
	maxHead    = nbd.ChunkHeaderSize + nbd.ChunkErrorSize + maxMessage
)

func (r *request) cmd() nbd.Command        { return nbd.Command(r.hdr.Type) }
func (r *request) flags() nbd.CommandFlags { return nbd.CommandFlags(r.hdr.CommandFlags) }

// changes reports whether r changes the device.
func (r *request) changes() bool {
	switch r.cmd() {
	case nbd.CmdWrite, nbd.CmdTrim, nbd.CmdWriteZeroes:
		return true
	}
	return false
}

// locks reports whether r needs its granules.
func (r *request) locks() bool { return r.changes() || r.cmd() == nbd.CmdRead }

// devFlags are the flags that the device honours.
func (r *request) devFlags() blockdev.Flags {
	var f blockdev.Flags
	if r.flags()&nbd.FlagFUA != 0 {
		f |= blockdev.FUA
	}
	if r.flags()&nbd.FlagNoHole != 0 {
		f |= blockdev.NoHole
	}
	if r.flags()&nbd.FlagFastZero != 0 {
		f |= blockdev.FastZero
	}
	return f
}

// succeed makes the reply to a request that was carried out. Data of a READ
// or BLOCK_STATUS are in the pieces.
func (r *request) succeed() {
	cookie := r.hdr.Handle
	r.data = false
	switch {
	case r.cmd() == nbd.CmdRead:
		r.data = true
		if r.c.neg.structured {
			r.nhead = nbd.PutDataChunk(r.head[:], cookie, r.hdr.Offset, r.hdr.Length)
			return
		}
	case r.cmd() == nbd.CmdBlockStatus:
		r.data = true
		r.nhead = nbd.PutChunkHeader(r.head[:], nbd.FlagDone, nbd.ChunkBlockStatus, cookie, uint32(len(r.pieces[0].b)))
		return
	}
	r.nhead = nbd.PutSimpleReply(r.head[:], cookie, 0)
}

// fail makes an error reply; it never has a payload. With structured replies it is an
// error chunk, which also tells msg (at most maxMessage bytes).
func (r *request) fail(e nbd.Errno, msg string) {
	r.data = false
	if r.c.neg.structured {
		r.nhead = nbd.PutErrorChunk(r.head[:], r.hdr.Handle, e, msg[:min(len(msg), maxMessage)])
		return
	}
	r.nhead = nbd.PutSimpleReply(r.head[:], r.hdr.Handle, e)
}

// replySize is the reply's length in bytes.
func (r *request) replySize() int {
	n := r.nhead
	if r.data {
		for i := range r.pieces {
			n += len(r.pieces[i].b)
		}
	}
	return n
}
