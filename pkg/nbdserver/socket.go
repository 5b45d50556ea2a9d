package nbdserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is the plain stream: a unix or TCP socket used through a descriptor
// of our own, so that one system call moves many buffers. Who waits, waits in
// poll(2) on a thread of his own: a request that finds its reader there is picked up by one
// switch of the kernel, without Go's poller and scheduler (BENCHMARKS.md tells
// what that gives). Nothing allocates per call.
type socket struct {
	fd    int
	event int // an eventfd: readable once reads are to stop
	stall time.Duration

	deadline time.Time // set, it bounds everything in place of limits
	stopped  atomic.Bool

	// drained: the last read took all there was, so that waiting comes first.
	drained bool
	// keen: the last wait was a short one, so that the next begins with trying.
	keen bool

	riov, wiov [maxVec]unix.Iovec
	rmsg, wmsg unix.Msghdr
	rpoll      [2]unix.PollFd
	wpoll      [1]unix.PollFd
	rtime      unix.Timespec
	wtime      unix.Timespec

	mu       sync.Mutex // for close, stopReads and release
	released bool
}

// newSocket takes the connection of nc, which must be a socket, over; nc is
// closed. A write that makes no progress for stall fails.
func newSocket(nc net.Conn, stall time.Duration) (*socket, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.New("connection is not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{fd: -1, stall: stall}
	cerr := raw.Control(func(fd uintptr) {
		// A duplicate, since Go's poller watches the original until it is closed.
		s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("taking the connection over: %w", err)
	}
	if s.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(s.fd)
		return nil, fmt.Errorf("taking the connection over: %w", err)
	}
	nc.Close()
	s.rpoll = [2]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.event), Events: unix.POLLIN}}
	s.wpoll[0] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLOUT}
	s.rmsg.Iov, s.wmsg.Iov = &s.riov[0], &s.wiov[0]
	return s, nil
}

// move is recvmsg or sendmsg, without waiting.
func (s *socket) move(call uintptr, m *unix.Msghdr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.Syscall(call, uintptr(s.fd), uintptr(unsafe.Pointer(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// ppoll waits for fds, at most for ts (nil: for ever), and returns how many are ready.
func ppoll(fds []unix.PollFd, ts *unix.Timespec) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	return int(n), errno
}

// wait is ppoll until end, or for ever if that is the zero time; os.ErrDeadlineExceeded.
func wait(fds []unix.PollFd, end time.Time, ts *unix.Timespec) error {
	for {
		limit := ts
		if end.IsZero() {
			limit = nil
		} else {
			*ts = unix.NsecToTimespec(int64(max(0, time.Until(end))))
		}
		n, errno := ppoll(fds, limit)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return os.NewSyscallError("ppoll", errno)
		case n == 0:
			return os.ErrDeadlineExceeded
		default:
			return nil
		}
	}
}

// fillVec sets iov from bufs, leaving out empty ones and what exceeds maxVec. It returns
// their number and their bytes.
func fillVec(iov *[maxVec]unix.Iovec, bufs [][]byte) (n, size int) {
	for _, b := range bufs {
		if len(b) > 0 && n < maxVec {
			iov[n].Base = &b[0]
			iov[n].SetLen(len(b))
			size += len(b)
			n++
		}
	}
	return n, size
}

// end is when something that may take d (0: for ever) has to be over.
func (s *socket) end(d time.Duration) time.Time {
	switch {
	case !s.deadline.IsZero():
		return s.deadline
	case d > 0:
		return time.Now().Add(d)
	}
	return time.Time{}
}

func (s *socket) readv(bufs [][]byte, limit time.Duration) (int, error) {
	k, size := fillVec(&s.riov, bufs)
	s.rmsg.SetIovlen(k)
	var end time.Time
	for waited := false; ; {
		if s.stopped.Load() {
			return 0, os.ErrDeadlineExceeded
		}
		n, errno := -1, unix.EAGAIN
		switch {
		case !s.drained:
			n, errno = s.move(unix.SYS_RECVMSG, &s.rmsg)
		case s.keen:
			n, errno = s.linger()
		}
		switch {
		case errno == unix.EAGAIN:
		case errno != 0:
			return 0, os.NewSyscallError("recvmsg", errno)
		case n == 0:
			return 0, io.EOF
		default:
			s.drained = n < size
			return n, nil
		}
		if !waited {
			waited, end = true, s.end(limit)
		}
		if err := s.waitReadable(end); err != nil {
			return 0, err
		}
	}
}

// waitReadable waits until there is something to read, or until reads are stopped.
func (s *socket) waitReadable(end time.Time) error {
	began := clock()
	if err := wait(s.rpoll[:], end, &s.rtime); err != nil {
		return err
	}
	s.drained, s.keen = false, canLinger && clock()-began < lingerFor
	return nil
}

// lingerFor is how long a read tries again before it lets the thread sleep, when
// the last one had to wait no longer. A client that has one request under
// way at a time gets its reply sooner for it: to wake a processor costs more than a read.
const lingerFor = 50 * time.Microsecond

// canLinger: on a single processor the client could not go on meanwhile.
var canLinger = runtime.NumCPU() > 1

// linger tries to read for a while without sleeping; others that want the
// processor go first.
func (s *socket) linger() (int, syscall.Errno) {
	for began := clock(); ; {
		n, errno := s.move(unix.SYS_RECVMSG, &s.rmsg)
		if errno != unix.EAGAIN || clock()-began > lingerFor {
			return n, errno
		}
		schedYield()
	}
}

func (s *socket) tryWritev(bufs [][]byte) (int, error) {
	k, _ := fillVec(&s.wiov, bufs)
	s.wmsg.SetIovlen(k)
	n, errno := s.move(unix.SYS_SENDMSG, &s.wmsg)
	switch errno {
	case 0:
		return n, nil
	case unix.EAGAIN:
		return 0, errWouldBlock
	}
	return 0, os.NewSyscallError("sendmsg", errno)
}

func (s *socket) writev(bufs [][]byte) (int, error) {
	end := s.end(s.stall)
	for {
		n, err := s.tryWritev(bufs)
		if err != errWouldBlock {
			return n, err
		}
		if err := wait(s.wpoll[:], end, &s.wtime); err != nil {
			return 0, err
		}
	}
}

// prober asks a socket for a hang-up without allocating. Each goroutine that
// asks has its own.
type prober struct {
	fds  [1]unix.PollFd
	zero unix.Timespec
}

func newProber() *prober { return &prober{} }

func (s *socket) hungUp(p *prober) bool {
	p.fds[0] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLRDHUP}
	n, errno := ppoll(p.fds[:], &p.zero)
	for errno == unix.EINTR {
		n, errno = ppoll(p.fds[:], &p.zero)
	}
	return errno != 0 || n > 0
}

func (s *socket) setDeadline(t time.Time) { s.deadline = t }

func (s *socket) stopReads() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped.Swap(true) || s.released {
		return
	}
	one := [8]byte{1}
	unix.Write(s.event, one[:]) // fails only if it is readable already
}

func (s *socket) close() {
	s.stopReads()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.released {
		unix.Shutdown(s.fd, unix.SHUT_RDWR)
	}
}

func (s *socket) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.released {
		s.released = true
		unix.Close(s.fd)
		unix.Close(s.event)
	}
}

// schedYield lets other threads that want the processor go first.
func schedYield() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
