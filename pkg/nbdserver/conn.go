package nbdserver

import (
	"time"

	"go.uber.org/zap"

	"sealdisk/blockdev"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/nbd"
)

// conn is one client.
type conn struct {
	srv  *Server
	s    stream
	in   input
	peer Peer
	log  *zap.Logger
	neg  negotiated
}

func newConn(s *Server, n uint64, st stream, peer Peer) *conn {
	c := &conn{srv: s, s: st, peer: peer, log: s.log.With(logfield.Conn(n), logfield.Peer(peer.String()))}
	c.in = input{s: st, buf: make([]byte, 64<<10)}
	return c
}

func (c *conn) serve(ex Exports) {
	defer c.srv.unregister(c)
	defer c.s.close()
	c.s.setDeadline(time.Now().Add(c.srv.cfg.HandshakeTimeout))
	h := &handshake{in: &c.in, ex: ex, peer: c.peer, log: c.log, join: func(e *Export) error { return e.Gate.join(c) }}
	err := h.run()
	<-c.srv.half
	if err == nil {
		defer h.neg.export.Gate.part(c)
		err = h.flush()
	}
	if err != nil {
		if !quiet(err) {
			c.log.Info("handshake failed", logfield.Err(err))
		}
		return
	}
	c.s.setDeadline(time.Time{})
	c.neg = h.neg
	c.transmit()
}

func (c *conn) finish() { c.s.setReadDeadline(time.Unix(1, 0)) }
func (c *conn) kill()   { c.s.close() }

func (c *conn) transmit() {
	for {
		b, err := c.in.need(nbd.RequestHeaderSize)
		if err != nil {
			return
		}
		var h nbd.RequestHeader
		nbd.GetRequestHeader(b, &h)
		if h.RequestMagic != nbd.MagicRequest {
			return
		}
		c.in.skip(nbd.RequestHeaderSize)
		if nbd.Command(h.Type) == nbd.CmdDisc {
			return
		}
		var data []byte
		if nbd.Command(h.Type) == nbd.CmdWrite || nbd.Command(h.Type) == nbd.CmdRead {
			if h.Length > nbd.MaxPayload {
				return
			}
			data = make([]byte, h.Length)
		}
		if nbd.Command(h.Type) == nbd.CmdWrite {
			if c.in.readFull(data) != nil {
				return
			}
		}
		errno := c.thin(&h, data)
		var out []byte
		var hdr [64]byte
		read := nbd.Command(h.Type) == nbd.CmdRead
		switch {
		case errno != 0 && c.neg.structured:
			out = hdr[:nbd.PutErrorChunk(hdr[:], h.Handle, errno, "")]
		case read && c.neg.structured:
			out = append(hdr[:nbd.PutDataChunk(hdr[:], h.Handle, h.Offset, h.Length)], data...)
		default:
			out = hdr[:nbd.PutSimpleReply(hdr[:], h.Handle, errno)]
			if read && errno == 0 {
				out = append(out, data...)
			}
		}
		if writeAll(c.s, out) != nil {
			return
		}
	}
}

func (c *conn) thin(h *nbd.RequestHeader, data []byte) nbd.Errno {
	e := c.neg.export
	if !e.Gate.enter() {
		return nbd.ESHUTDOWN
	}
	defer e.Gate.leave()
	if blockdev.CheckRange(int64(h.Offset), int64(h.Length), e.Device.Size()) != nil {
		return nbd.EINVAL
	}
	wait := make(chan struct{})
	r := &blockdev.Range{Off: int64(h.Offset), Len: int64(h.Length), Exclusive: true, Granted: func(*blockdev.Range) { close(wait) }}
	if !e.Locks.Acquire(r) {
		<-wait
	}
	defer e.Locks.Release(r)
	var f blockdev.Flags
	if nbd.CommandFlags(h.CommandFlags)&nbd.FlagFUA != 0 {
		f = blockdev.FUA
	}
	var err error
	switch nbd.Command(h.Type) {
	case nbd.CmdRead:
		err = e.Device.ReadAt(data, int64(h.Offset))
	case nbd.CmdWrite:
		err = e.Device.WriteAt(data, int64(h.Offset), f)
	case nbd.CmdFlush:
		err = e.Device.Flush()
	case nbd.CmdTrim:
		err = e.Device.Trim(int64(h.Offset), int64(h.Length), f)
	case nbd.CmdWriteZeroes:
		err = e.Device.WriteZeroes(int64(h.Offset), int64(h.Length), f)
	case nbd.CmdCache:
	default:
		return nbd.EINVAL
	}
	if err != nil {
		return nbd.EIO
	}
	return 0
}
