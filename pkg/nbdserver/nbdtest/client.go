package nbdtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"

	"sealdisk/pkg/nbd"
)

// Client speaks the transmission phase. Its methods may be called
// concurrently; any number of requests may be under way. A reply that breaks
// the protocol fails every request from then on with what was wrong.
type Client struct {
	Conn     *net.UnixConn
	Bytes    uint64 // size of the export
	Flags    nbd.TransmissionFlags
	features Features

	send  sync.Mutex // one request at a time; never taken while holding mu
	mu    sync.Mutex
	calls map[uint64]*Call
	err   error
	rng   *rand.Rand
}

// Call is one request under way.
type Call struct {
	hdr  nbd.RequestHeader
	done chan struct{}
	err  error

	// Data is what a READ gave, Extents what BLOCK_STATUS gave.
	Data    []byte
	Extents []Extent
	covered int
}

// Extent is one descriptor of BLOCK_STATUS.
type Extent struct{ Len, State uint32 }

// NewClient begins the transmission on c.
func NewClient(c *net.UnixConn, size uint64, flags nbd.TransmissionFlags, f Features) *Client {
	cl := &Client{Conn: c, Bytes: size, Flags: flags, features: f, calls: map[uint64]*Call{}, rng: rand.New(rand.NewPCG(size, 1))}
	go cl.receive()
	return cl
}

// Request encodes a request.
func Request(cmd nbd.Command, f nbd.CommandFlags, cookie, off uint64, length uint32, data []byte) []byte {
	b := make([]byte, nbd.RequestHeaderSize, nbd.RequestHeaderSize+len(data))
	nbd.PutRequestHeader(b, &nbd.RequestHeader{RequestMagic: nbd.MagicRequest, CommandFlags: uint16(f), Type: uint16(cmd), Handle: cookie, Offset: off, Length: length})
	return append(b, data...)
}

// Start sends a request with a cookie of its own and returns at once. A
// WRITE has the length of data whatever length is; others have no data.
func (c *Client) Start(cmd nbd.Command, f nbd.CommandFlags, off uint64, length uint32, data []byte) *Call {
	if cmd == nbd.CmdWrite {
		length = uint32(len(data))
	} else {
		data = nil
	}
	call := &Call{done: make(chan struct{})}
	c.mu.Lock()
	cookie := c.cookieLocked()
	call.hdr = nbd.RequestHeader{CommandFlags: uint16(f), Type: uint16(cmd), Handle: cookie, Offset: off, Length: length}
	if c.err != nil {
		call.err = c.err
		close(call.done)
		c.mu.Unlock()
		return call
	}
	if cmd != nbd.CmdDisc {
		c.calls[cookie] = call
	}
	c.mu.Unlock()

	c.send.Lock()
	defer c.send.Unlock()
	// If it fails the connection is broken: receive finds out, once the replies
	// that are on their way have come.
	_, _ = c.Conn.Write(Request(cmd, f, cookie, off, length, data))
	return call
}

// cookieLocked makes a cookie that is not in use: any 64 bits, the
// extremes and close neighbours among them.
func (c *Client) cookieLocked() uint64 {
	for {
		n := []uint64{0, ^uint64(0), 1 << 63, uint64(len(c.calls)), c.rng.Uint64()}[c.rng.IntN(5)]
		if _, used := c.calls[n]; !used {
			return n
		}
	}
}

// Wait waits for the reply. The error is an nbd.Errno if the server sent one.
func (call *Call) Wait() error {
	<-call.done
	return call.err
}

// Done reports whether the reply is there.
func (call *Call) Done() bool {
	select {
	case <-call.done:
		return true
	default:
		return false
	}
}

// Do is Start and Wait.
func (c *Client) Do(cmd nbd.Command, f nbd.CommandFlags, off uint64, length uint32, data []byte) (*Call, error) {
	call := c.Start(cmd, f, off, length, data)
	return call, call.Wait()
}

// Disconnect sends DISC and waits for the server to close.
func (c *Client) Disconnect() error {
	c.Start(nbd.CmdDisc, 0, 0, 0, nil)
	return c.Closed()
}

// Closed waits until the server has closed the connection, and returns nil if
// it did so between two replies.
func (c *Client) Closed() error {
	probe := &Call{done: make(chan struct{})}
	c.mu.Lock()
	if c.err == nil {
		c.calls[c.cookieLocked()] = probe
		c.mu.Unlock()
		<-probe.done
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	c.Conn.Close()
	if errors.Is(c.err, io.EOF) {
		return nil
	}
	return c.err
}

func (c *Client) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	for _, call := range c.calls {
		call.err = err
		close(call.done)
	}
	c.calls = nil
}

func (c *Client) receive() {
	r := bufio.NewReaderSize(c.Conn, 64<<10)
	for {
		if err := c.reply(r); err != nil {
			c.mu.Lock()
			c.failLocked(err)
			c.mu.Unlock()
			return
		}
	}
}

func (c *Client) find(cookie uint64) (*Call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call := c.calls[cookie]; call != nil {
		return call, nil
	}
	return nil, fmt.Errorf("reply to cookie %#x, which is not under way", cookie)
}

func (c *Client) finish(call *Call, err error) {
	c.mu.Lock()
	delete(c.calls, call.hdr.Handle)
	c.mu.Unlock()
	call.err = err
	close(call.done)
}

// reply takes one reply in; its error breaks the connection. io.EOF is an end between replies.
func (c *Client) reply(r *bufio.Reader) error {
	magic := make([]byte, 4)
	if _, err := io.ReadFull(r, magic); err != nil {
		return err
	}
	switch m := be.Uint32(magic); {
	case m == nbd.MagicSimpleReply:
		return unexpected(c.simple(r))
	case m == nbd.MagicStructuredReply && c.features.Structured:
		return unexpected(c.chunk(r))
	default:
		return fmt.Errorf("reply with magic %#x", m)
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *Client) simple(r *bufio.Reader) error {
	b := make([]byte, nbd.SimpleReplySize)
	if _, err := io.ReadFull(r, b[4:]); err != nil {
		return err
	}
	h := nbd.GetSimpleReply(b)
	call, err := c.find(h.Handle)
	if err != nil {
		return err
	}
	cmd := nbd.Command(call.hdr.Type)
	if c.features.Structured && (cmd == nbd.CmdRead || cmd == nbd.CmdBlockStatus && h.Error == 0) {
		return fmt.Errorf("simple reply to %v although structured replies are on", cmd)
	}
	if h.Error != 0 {
		c.finish(call, nbd.Errno(h.Error))
		return nil
	}
	if cmd == nbd.CmdRead {
		call.Data = make([]byte, call.hdr.Length)
		if _, err := io.ReadFull(r, call.Data); err != nil {
			return err
		}
	}
	c.finish(call, nil)
	return nil
}

func (c *Client) chunk(r *bufio.Reader) error {
	b := make([]byte, nbd.ChunkHeaderSize)
	if _, err := io.ReadFull(r, b[4:]); err != nil {
		return err
	}
	h := nbd.GetChunkHeader(b)
	call, err := c.find(h.Cookie)
	if err != nil {
		return err
	}
	if h.Length > nbd.MaxPayload+1024 {
		return fmt.Errorf("chunk of %d bytes", h.Length)
	}
	data := make([]byte, h.Length)
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	if err := call.take(h, data); err != nil {
		return fmt.Errorf("%v chunk for %v: %w", h.Type, nbd.Command(call.hdr.Type), err)
	}
	if h.Flags&nbd.FlagDone == 0 {
		return nil
	}
	if cmd := nbd.Command(call.hdr.Type); call.err == nil {
		if cmd == nbd.CmdRead && call.covered != int(call.hdr.Length) {
			return fmt.Errorf("READ of %d bytes got %d", call.hdr.Length, call.covered)
		}
		if cmd == nbd.CmdBlockStatus && call.Extents == nil {
			return errors.New("BLOCK_STATUS without extents")
		}
	}
	c.finish(call, call.err)
	return nil
}

// take checks one chunk and keeps what it says.
func (call *Call) take(h nbd.ChunkHeader, data []byte) error {
	cmd := nbd.Command(call.hdr.Type)
	malformed := fmt.Errorf("malformed: %d bytes", len(data))
	off, length := call.hdr.Offset, uint64(call.hdr.Length)
	switch {
	case h.Type.IsError():
		if len(data) < nbd.ChunkErrorSize || int(be.Uint16(data[4:])) > len(data)-nbd.ChunkErrorSize || be.Uint32(data) == 0 {
			return malformed
		}
		call.err = nbd.Errno(be.Uint32(data))
	case h.Type == nbd.ChunkNone && len(data) == 0 && h.Flags&nbd.FlagDone != 0:
	case h.Type == nbd.ChunkOffsetData && cmd == nbd.CmdRead:
		if len(data) <= 8 || be.Uint64(data) < off || be.Uint64(data)-off+uint64(len(data)-8) > length {
			return malformed
		}
		if call.Data == nil {
			call.Data = make([]byte, length)
		}
		copy(call.Data[be.Uint64(data)-off:], data[8:])
		call.covered += len(data) - 8
	case h.Type == nbd.ChunkBlockStatus && cmd == nbd.CmdBlockStatus:
		if len(data) < 12 || len(data)%8 != 4 || call.Extents != nil {
			return malformed
		}
		var sum uint64
		for d := data[4:]; len(d) > 0; d = d[8:] {
			e := Extent{be.Uint32(d), be.Uint32(d[4:])}
			if sum += uint64(e.Len); e.Len == 0 || sum > length {
				return fmt.Errorf("extents of %d bytes for a request of %d", sum, length)
			}
			call.Extents = append(call.Extents, e)
		}
		if nbd.CommandFlags(call.hdr.CommandFlags)&nbd.FlagReqOne != 0 && len(call.Extents) > 1 {
			return fmt.Errorf("%d extents although REQ_ONE", len(call.Extents))
		}
	default:
		return errors.New("unexpected")
	}
	return nil
}
