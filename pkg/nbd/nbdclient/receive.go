package nbdclient

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/nbd"
)

// Bounds of what a reply may carry, in bytes.
const (
	maxErrorChunk  = nbd.ChunkErrorSize + nbd.MaxString + 8
	maxStatusChunk = nbd.ContextIDSize + nbd.DescriptorSize<<20
)

// receiver takes the stream of replies apart. The bytes buf[r:w] are not looked at
// yet; cur is the tag whose reply is half taken in, -1 between two replies.
type receiver struct {
	buf  []byte
	r, w int
	cur  int

	// Of the reply of cur: what its payload is still to fill, the rest of its
	// descriptors, or bytes to be skipped; and whether it is the last.
	dest        []byte
	descriptors int
	skip        int
	last        bool

	iov [2]unix.Iovec
	msg unix.Msghdr
}

func (v *receiver) init() {
	v.buf, v.cur, v.msg.Iov = make([]byte, inputSize), -1, &v.iov[0]
}

// directSize is the least part of a payload that is received into the caller's buffer
// at once; less goes through buf.
const directSize = 4 << 10

// receive takes in what there is, straight into a payload's target where a reply's payload is
// under way. Without MSG_DONTWAIT it waits.
func (c *Conn) receive(flags uintptr) error {
	v := &c.recv
	v.w = copy(v.buf, v.buf[v.r:v.w]) // part of a head, or nothing
	v.r = 0
	direct := 0
	vecs := v.iov[:0]
	if len(v.dest) >= directSize {
		direct = len(v.dest)
		vecs = append(vecs, unix.Iovec{Base: &v.dest[0]})
		vecs[0].SetLen(direct)
	}
	vecs = append(vecs, unix.Iovec{Base: &v.buf[v.w]})
	vecs[len(vecs)-1].SetLen(len(v.buf) - v.w)
	v.msg.SetIovlen(len(vecs))
	n, errno := c.move(unix.SYS_RECVMSG, &v.msg, flags)
	switch {
	case errno == unix.EAGAIN:
		return nil
	case errno != 0:
		return ended(os.NewSyscallError("recvmsg", errno))
	case n == 0:
		return ended(io.EOF)
	}
	direct = min(n, direct)
	v.dest = v.dest[direct:]
	v.w += n - direct
	return nil
}

// parse looks at the bytes that have come in, up to the end of one request: its tag and true.
func (c *Conn) parse() (tag int, ok bool, err error) {
	v := &c.recv
	for {
		if v.cur < 0 {
			more, err := c.head()
			if err != nil || more {
				return 0, false, err
			}
		}
		if !c.body() {
			return 0, false, nil
		}
		tag, v.cur = v.cur, -1
		if v.last {
			return tag, true, c.complete(&c.slots[tag])
		}
	}
}

// head takes the head of a reply and what tells how long the rest is; more says that bytes are missing.
func (c *Conn) head() (more bool, err error) {
	v := &c.recv
	b := v.buf[v.r:v.w]
	if len(b) < nbd.SimpleReplySize {
		return true, nil
	}
	magic := be.Uint32(b)
	switch {
	case magic == nbd.MagicSimpleReply:
		v.r += nbd.SimpleReplySize
		return false, c.simple(b)
	case magic == nbd.MagicStructuredReply && c.structured:
		return c.chunk(b)
	}
	return false, broken("a reply begins with %#x", magic)
}

// find is the request that a cookie means.
func (c *Conn) find(cookie uint64) (tag int, s *slot, err error) {
	tag = int(cookie & 0xffff)
	if tag < len(c.slots) {
		if s = &c.slots[tag]; s.busy && s.sent && s.cookie == cookie {
			return tag, s, nil
		}
	}
	return 0, nil, broken("a reply to cookie %#x, which is not under way", cookie)
}

func (c *Conn) simple(b []byte) error {
	v := &c.recv
	h := nbd.GetSimpleReply(b)
	tag, s, err := c.find(h.Handle)
	if err != nil {
		return err
	}
	if c.structured && (s.cmd == nbd.CmdRead || s.cmd == nbd.CmdBlockStatus && h.Error == 0) {
		return broken("a simple reply to %v although structured replies were agreed on", s.cmd)
	}
	v.cur, v.last, s.errno = tag, true, nbd.Errno(h.Error)
	if s.cmd == nbd.CmdRead && h.Error == 0 {
		v.dest, s.covered = s.data, uint64(s.length)
	}
	return nil
}

// chunk takes the head of a structured reply chunk and the fixed part of its payload.
func (c *Conn) chunk(b []byte) (more bool, err error) {
	v := &c.recv
	if len(b) < nbd.ChunkHeaderSize {
		return true, nil
	}
	h := nbd.GetChunkHeader(b)
	tag, s, err := c.find(h.Cookie)
	if err != nil {
		return false, err
	}
	fixed, least, most := 0, 0, 0
	switch {
	case h.Type.IsError():
		fixed, least, most = nbd.ChunkErrorSize, nbd.ChunkErrorSize, maxErrorChunk
	case h.Type == nbd.ChunkNone && h.Flags&nbd.FlagDone != 0:
	case h.Type == nbd.ChunkOffsetData && s.cmd == nbd.CmdRead:
		fixed, least, most = nbd.ChunkOffsetSize, nbd.ChunkOffsetSize+1, nbd.ChunkOffsetSize+int(s.length)
	case h.Type == nbd.ChunkOffsetHole && s.cmd == nbd.CmdRead:
		fixed, least, most = nbd.ChunkOffsetSize+4, nbd.ChunkOffsetSize+4, nbd.ChunkOffsetSize+4
	case h.Type == nbd.ChunkBlockStatus && s.cmd == nbd.CmdBlockStatus && s.covered == 0:
		fixed, least, most = nbd.ContextIDSize, nbd.ContextIDSize+nbd.DescriptorSize, maxStatusChunk
	default:
		return false, broken("a chunk %v in reply to %v", h.Type, s.cmd)
	}
	if int64(h.Length) < int64(least) || int64(h.Length) > int64(most) {
		return false, broken("a chunk %v of %d bytes in reply to %v of %d", h.Type, h.Length, s.cmd, s.length)
	}
	if len(b) < nbd.ChunkHeaderSize+fixed {
		return true, nil
	}
	v.r += nbd.ChunkHeaderSize + fixed
	v.cur, v.last = tag, h.Flags&nbd.FlagDone != 0
	p, rest := b[nbd.ChunkHeaderSize:], int(h.Length)-fixed
	switch {
	case h.Type.IsError():
		s.errno = nbd.Errno(be.Uint32(p))
		if v.skip = rest; s.errno == 0 {
			return false, broken("an error chunk without an error")
		}
	case h.Type == nbd.ChunkOffsetData:
		v.dest, err = s.part(be.Uint64(p), uint64(rest))
	case h.Type == nbd.ChunkOffsetHole:
		var hole []byte
		hole, err = s.part(be.Uint64(p), uint64(be.Uint32(p[nbd.ChunkOffsetSize:])))
		clear(hole)
	case h.Type == nbd.ChunkBlockStatus:
		v.descriptors = rest / nbd.DescriptorSize
		if rest%nbd.DescriptorSize != 0 {
			err = broken("a BLOCK_STATUS chunk of %d bytes", h.Length)
		}
	}
	return false, err
}

// part is where a chunk of n bytes at off belongs.
func (s *slot) part(off, n uint64) ([]byte, error) {
	length := uint64(s.length)
	if off < s.off || off-s.off > length || n > length-(off-s.off) || n > length-s.covered {
		return nil, broken("a chunk of %d bytes at %d in reply to READ of %d at %d", n, off, s.length, s.off)
	}
	s.covered += n
	return s.data[off-s.off:][:n], nil
}

// badExtents marks, in slot.covered, descriptors that complete is to refuse.
const badExtents = 1 << 62

// body takes in the rest of a reply; false says that bytes are missing.
func (c *Conn) body() bool {
	v := &c.recv
	n := copy(v.dest, v.buf[v.r:v.w])
	v.dest = v.dest[n:]
	v.r += n
	n = min(v.skip, v.w-v.r)
	v.skip -= n
	v.r += n
	s := &c.slots[v.cur]
	for ; v.descriptors > 0 && v.w-v.r >= nbd.DescriptorSize; v.descriptors-- {
		e := Extent{be.Uint32(v.buf[v.r:]), be.Uint32(v.buf[v.r+4:])}
		v.r += nbd.DescriptorSize
		if e.Length == 0 || s.covered >= uint64(s.length) {
			s.covered = badExtents
			continue
		}
		s.covered += uint64(e.Length) // the last may reach beyond what was asked for
		if d := s.extents; len(*d) < cap(*d) {
			*d = append(*d, e)
		}
	}
	return len(v.dest) == 0 && v.skip == 0 && v.descriptors == 0
}

// complete checks a reply that is taken in as a whole.
func (c *Conn) complete(s *slot) error {
	switch {
	case s.errno != 0:
	case s.cmd == nbd.CmdRead && s.covered != uint64(s.length):
		return broken("%d bytes in reply to READ of %d", s.covered, s.length)
	case s.cmd == nbd.CmdBlockStatus && s.covered == 0:
		return broken("no extents in reply to BLOCK_STATUS")
	case s.cmd == nbd.CmdBlockStatus && s.covered == badExtents:
		return broken("empty extents, or too many, in reply to BLOCK_STATUS of %d", s.length)
	}
	return nil
}
