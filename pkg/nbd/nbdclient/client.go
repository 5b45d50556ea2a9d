// Package nbdclient is an NBD client for programs that want many requests under
// way and know what they do: a queue pair rather than a device.
//
// One goroutine owns a Conn. It submits requests, each under a tag of its choice,
// and takes replies with Next, in whatever order the server sends them:
//
//  1. Read, Write, … put a request into the queue and return at once.
//  2. Next gives the replies that have arrived already, one a call.
//  3. When there are none it sends all of the queue, with one system call where the
//     socket takes it, and waits for the server in another. So one read brings many replies, and
//     the requests that they lead to leave with one write. Payloads go
//     from and to the caller's buffers; large ones are not copied in between.
//
// Nothing on this way allocates. Replies are taken in while requests wait for room in
// the socket, so that client and server never wait for each other.
//
// The replies are checked against the protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md):
// one that breaks it ends the connection with an error that says how.
package nbdclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/nbd"
)

var (
	// ErrProtocol is returned when the server's bytes are not NBD or break its rules.
	ErrProtocol = errors.New("the server breaks the NBD protocol")
	// ErrClosed is returned when the server has closed the connection, or Abort has.
	ErrClosed = errors.New("the NBD connection is closed")
)

// MaxDepth is the largest number of requests under way that a Conn may have.
const MaxDepth = 1 << 12

// inputSize is the size of the buffer for what is read, in bytes.
const inputSize = 64 << 10

// Options of a connection.
type Options struct {
	// Depth is the number of tags: at most so many requests are under way. 1 to MaxDepth.
	Depth int
	// Allocation asks for structured replies and base:allocation, for
	// BlockStatus. A server may refuse; Conn.Allocation tells.
	Allocation bool
}

// Conn is a connection in the transmission phase. All methods but Abort are for
// one goroutine at a time. A buffer passed to Read or Write is the Conn's until its reply
// has come or the Conn is closed.
type Conn struct {
	size       int64
	flags      nbd.TransmissionFlags
	structured bool
	allocation bool

	mu       sync.Mutex // for fd against Abort
	fd       int        // -1 once closed
	err      error      // why the connection is of no use any more
	slots    []slot
	under    int // requests that wait for their reply
	sequence uint64

	send sender
	recv receiver
}

// slot is the place of one request under way.
type slot struct {
	busy    bool
	sent    bool // as a whole
	cookie  uint64
	cmd     nbd.Command
	off     uint64
	length  uint32
	data    []byte    // a READ's target, a WRITE's source
	extents *[]Extent // BLOCK_STATUS
	covered uint64    // bytes that chunks have told of
	errno   nbd.Errno
	head    [nbd.RequestHeaderSize]byte
}

// Extent is one descriptor of BLOCK_STATUS: Length bytes with the bits nbd.StateHole
// and nbd.StateZero.
type Extent struct{ Length, State uint32 }

// Reply is the end of a request.
type Reply struct {
	Tag   int
	Errno nbd.Errno // 0 is success
}

// Dial connects to the unix socket at path and opens the export name. The errors are those
// of connecting, *OptionError if the server refuses, and ErrProtocol. ctx bounds all of it.
func Dial(ctx context.Context, path, export string, o Options) (*Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return New(ctx, nc, export, o)
}

// New is Dial on a connection that exists, which must be a socket; it is taken over,
// and closed if New fails.
func New(ctx context.Context, nc net.Conn, export string, o Options) (*Conn, error) {
	if o.Depth < 1 || o.Depth > MaxDepth {
		panic("nbdclient: depth out of range")
	}
	defer nc.Close()
	if d, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(d); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &Conn{fd: -1, slots: make([]slot, o.Depth)}
	err := c.shake(nc, export, o.Allocation)
	if err == nil {
		err = c.take(nc)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
		return nil, err
	}
	c.recv.init()
	c.send.init(o.Depth)
	return c, nil
}

// take makes a blocking descriptor of the connection: who waits, waits in the kernel on a thread
// of his own and is picked up by one switch, without Go's poller.
func (c *Conn) take(nc net.Conn) error {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return errors.New("the connection is not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		// A duplicate, since the original is Go's poller's.
		if c.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(c.fd, false)
		}
	})
	return errors.Join(cerr, err)
}

// Size of the export in bytes.
func (c *Conn) Size() int64 { return c.size }

// Flags that the server sent with the export.
func (c *Conn) Flags() nbd.TransmissionFlags { return c.flags }

// Allocation reports whether BlockStatus may be asked.
func (c *Conn) Allocation() bool { return c.allocation }

// Under is the number of requests under way.
func (c *Conn) Under() int { return c.under }

// Read asks for len(p) bytes at off, which are in p once the reply says success.
func (c *Conn) Read(tag int, p []byte, off int64) {
	c.submit(tag, nbd.CmdRead, 0, off, len(p)).data = p
}

// Write asks for p to be written at off. p must not change until the reply.
func (c *Conn) Write(tag int, p []byte, off int64) {
	c.submit(tag, nbd.CmdWrite, 0, off, len(p)).data = p
}

// WriteZeroes asks for zeros, whose storage the server may give back.
func (c *Conn) WriteZeroes(tag int, off int64, length int) {
	c.submit(tag, nbd.CmdWriteZeroes, 0, off, length)
}

// BlockStatus asks for the extents of a range. As many as *dst has room for are appended to it, from
// off on without gaps; they may end before the range does.
func (c *Conn) BlockStatus(tag int, off int64, length int, dst *[]Extent) {
	if !c.allocation {
		panic("nbdclient: BlockStatus was not agreed on")
	}
	c.submit(tag, nbd.CmdBlockStatus, 0, off, length).extents = dst
}

// submit puts a request into the queue.
func (c *Conn) submit(tag int, cmd nbd.Command, f nbd.CommandFlags, off int64, length int) *slot {
	s := &c.slots[tag]
	switch {
	case s.busy:
		panic("nbdclient: the tag's request is still under way")
	case off < 0 || length < 0 || length > 1<<32-1:
		panic("nbdclient: range out of bounds")
	case (cmd == nbd.CmdRead || cmd == nbd.CmdWrite) && length > nbd.MaxPayload:
		panic("nbdclient: payload above the protocol's 32 MiB")
	}
	c.sequence++
	s.busy, s.sent, s.cmd, s.off, s.length = true, false, cmd, uint64(off), uint32(length)
	s.covered, s.errno, s.data, s.extents = 0, 0, nil, nil
	s.cookie = c.sequence<<16 | uint64(tag)
	nbd.PutRequestHeader(s.head[:], &nbd.RequestHeader{RequestMagic: nbd.MagicRequest, CommandFlags: uint16(f),
		Type: uint16(cmd), Handle: s.cookie, Offset: s.off, Length: s.length})
	c.send.push(tag)
	c.under++
	return s
}

// Next returns the next reply; something must be under way. An error means the connection: nothing
// more will come of it.
func (c *Conn) Next() (Reply, error) {
	if c.under == 0 {
		panic("nbdclient: nothing is under way")
	}
	for c.err == nil {
		tag, ok, err := c.parse()
		if ok && err == nil {
			s := &c.slots[tag]
			s.busy, s.data, s.extents = false, nil, nil
			c.under--
			return Reply{Tag: tag, Errno: s.errno}, nil
		}
		if err == nil {
			err = c.exchange()
		}
		c.err = err
	}
	return Reply{}, c.err
}

// exchange sends what is queued and waits until something has come in.
func (c *Conn) exchange() error {
	if err := c.trySend(); err != nil {
		return err
	}
	if !c.send.pending() {
		return c.receive(0) // waits in the kernel
	}
	p := &c.send.poll
	p[0] = unix.PollFd{Fd: int32(c.fd), Events: unix.POLLIN | unix.POLLOUT}
	if _, err := unix.Poll(p[:], -1); err != nil && err != unix.EINTR {
		return os.NewSyscallError("poll", err)
	}
	if p[0].Revents&^unix.POLLOUT == 0 {
		return nil
	}
	return c.receive(unix.MSG_DONTWAIT)
}

// Abort breaks the connection: whoever waits in Next returns with ErrClosed. It may be called at
// any time by any goroutine.
func (c *Conn) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
}

// Close ends the connection, with DISC if nothing is under way. Only the first call counts.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	var err error
	if c.under == 0 && c.err == nil {
		s := c.submit(0, nbd.CmdDisc, 0, 0, 0)
		err = c.trySend()
		s.busy, c.under = false, 0
	}
	c.err = ErrClosed
	c.mu.Lock()
	defer c.mu.Unlock()
	err = errors.Join(err, unix.Close(c.fd))
	c.fd = -1
	return err
}

// broken is ErrProtocol with what was wrong.
func broken(format string, v ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, v...))
}

// ended makes the end of the stream an error of ours.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}
