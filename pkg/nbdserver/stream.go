package nbdserver

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errWouldBlock is returned by tryWritev when the peer's buffer is full.
var errWouldBlock = errors.New("would block")

// maxVec is the most buffers that one readv or writev moves.
const maxVec = 128

// stream carries a connection's bytes. One goroutine may read, one write and
// any number ask hungUp at a time. Buffers stay the caller's. It is the place
// where TLS slots in.
type stream interface {
	// readv waits for bytes, at most for limit unless that is 0, and scatters
	// them over bufs; io.EOF at the end, os.ErrDeadlineExceeded.
	readv(bufs [][]byte, limit time.Duration) (int, error)
	// tryWritev writes what fits without waiting, else errWouldBlock.
	tryWritev(bufs [][]byte) (int, error)
	// writev waits until some bytes fit, at most the stall time.
	writev(bufs [][]byte) (int, error)
	// hungUp reports whether the peer shut down its sending side or is gone.
	// p belongs to the calling goroutine.
	hungUp(p *prober) bool
	// setDeadline bounds everything, in place of limits and stall time, until it
	// is cleared with the zero time. Not while reads or writes are under way.
	setDeadline(t time.Time) error
	// stopReads makes reads fail from now on.
	stopReads()
	// close wakes whoever reads or writes.
	close() error
}

// socket is the plain stream: a unix or TCP socket used through its
// descriptor, so that one system call moves many buffers and the write side
// can be tried without waiting. Go's poller does the waiting. The functions
// given to RawConn are made once: nothing allocates per call.
type socket struct {
	conn  net.Conn
	raw   syscall.RawConn
	stall time.Duration

	riov, wiov  [maxVec]unix.Iovec
	rlen, wlen  int
	rn, wn      int
	rerr, werr  syscall.Errno
	rwait, wait bool // readFn and writeFn wait
	fixed       bool // a deadline is set
	stopped     atomic.Bool
	readFn      func(fd uintptr) bool
	writeFn     func(fd uintptr) bool
}

// newSocket wraps c, which must be a socket. A write that makes no progress
// for stall fails.
func newSocket(c net.Conn, stall time.Duration) (*socket, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.New("connection is not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: c, raw: raw, stall: stall}
	s.readFn = func(fd uintptr) bool {
		s.rn, s.rerr = vec(unix.SYS_READV, fd, s.riov[:s.rlen])
		return s.rerr != unix.EAGAIN || !s.rwait
	}
	s.writeFn = func(fd uintptr) bool {
		s.wn, s.werr = vec(unix.SYS_WRITEV, fd, s.wiov[:s.wlen])
		return s.werr != unix.EAGAIN || !s.wait
	}
	return s, nil
}

func vec(call, fd uintptr, iov []unix.Iovec) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.Syscall(call, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// fillVec sets iov from bufs, leaving out empty ones and what exceeds maxVec.
func fillVec(iov *[maxVec]unix.Iovec, bufs [][]byte) int {
	n := 0
	for _, b := range bufs {
		if len(b) > 0 && n < maxVec {
			iov[n].Base = &b[0]
			iov[n].SetLen(len(b))
			n++
		}
	}
	return n
}

func (s *socket) readv(bufs [][]byte, limit time.Duration) (int, error) {
	s.rlen = fillVec(&s.riov, bufs)
	s.rwait = limit == 0 || s.fixed
	n, err := s.read()
	if err != errWouldBlock {
		return n, err
	}
	s.setReadDeadline(time.Now().Add(limit))
	s.rwait = true
	n, err = s.read()
	s.setReadDeadline(time.Time{})
	return n, err
}

// setReadDeadline sets a deadline, unless reads were stopped.
func (s *socket) setReadDeadline(t time.Time) {
	s.conn.SetReadDeadline(t)
	if s.stopped.Load() {
		s.conn.SetReadDeadline(past)
	}
}

// past is a time that is over.
var past = time.Unix(1, 0)

func (s *socket) stopReads() {
	s.stopped.Store(true)
	s.conn.SetReadDeadline(past)
}

func (s *socket) read() (int, error) {
	if err := s.raw.Read(s.readFn); err != nil {
		return 0, err
	}
	switch {
	case s.rerr == unix.EAGAIN:
		return 0, errWouldBlock
	case s.rerr != 0:
		return 0, os.NewSyscallError("readv", s.rerr)
	case s.rn == 0:
		return 0, io.EOF
	}
	return s.rn, nil
}

func (s *socket) tryWritev(bufs [][]byte) (int, error) {
	s.wlen, s.wait = fillVec(&s.wiov, bufs), false
	return s.write()
}

func (s *socket) writev(bufs [][]byte) (int, error) {
	s.wlen, s.wait = fillVec(&s.wiov, bufs), true
	if s.fixed {
		return s.write()
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.stall)); err != nil {
		return 0, err
	}
	n, err := s.write()
	if err == nil {
		err = s.conn.SetWriteDeadline(time.Time{})
	}
	return n, err
}

func (s *socket) write() (int, error) {
	if err := s.raw.Write(s.writeFn); err != nil {
		return 0, err
	}
	switch s.werr {
	case 0:
		return s.wn, nil
	case unix.EAGAIN:
		return 0, errWouldBlock
	}
	return 0, os.NewSyscallError("writev", s.werr)
}

// prober asks a socket for a hang-up without allocating. Each goroutine that
// asks has its own.
type prober struct {
	fds  [1]unix.PollFd
	hung bool
	fn   func(fd uintptr)
}

func newProber() *prober {
	p := &prober{}
	p.fn = func(fd uintptr) {
		p.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
		n, err := unix.Poll(p.fds[:], 0)
		for err == unix.EINTR {
			n, err = unix.Poll(p.fds[:], 0)
		}
		p.hung = err != nil || n > 0 && p.fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	}
	return p
}

func (s *socket) hungUp(p *prober) bool {
	return s.raw.Control(p.fn) != nil || p.hung
}

func (s *socket) setDeadline(t time.Time) error {
	s.fixed = !t.IsZero()
	if err := s.conn.SetWriteDeadline(t); err != nil {
		return err
	}
	s.setReadDeadline(t)
	return nil
}

func (s *socket) close() error { return s.conn.Close() }
