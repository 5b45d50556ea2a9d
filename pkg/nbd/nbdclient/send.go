package nbdclient

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/nbd"
)

// maxVec is how many pieces one system call moves.
const maxVec = 128

// sender holds the requests that are not sent yet, in order.
type sender struct {
	ring       []int // tags
	head, tail int   // of ring, counted on without end
	sent       int   // bytes of the request at head that are sent
	iov        [maxVec]unix.Iovec
	msg        unix.Msghdr
	poll       [1]unix.PollFd
}

// init makes room for the requests of n tags.
func (s *sender) init(n int) {
	s.ring = make([]int, n)
	s.msg.Iov = &s.iov[0]
}

func (s *sender) pending() bool { return s.head != s.tail }

func (s *sender) push(tag int) {
	s.ring[s.tail%len(s.ring)] = tag
	s.tail++
}

// payload is what follows the head of a request.
func (s *slot) payload() []byte {
	if s.cmd == nbd.CmdWrite {
		return s.data
	}
	return nil
}

// trySend sends what the socket takes without waiting.
func (c *Conn) trySend() error {
	s := &c.send
	for s.pending() {
		want, vecs := 0, 0
		skip := s.sent
		for at := s.head; at != s.tail && vecs+2 <= maxVec; at++ {
			r := &c.slots[s.ring[at%len(s.ring)]]
			for _, b := range [2][]byte{r.head[:], r.payload()} {
				n := min(skip, len(b))
				skip -= n
				if b = b[n:]; len(b) > 0 {
					s.iov[vecs].Base = &b[0]
					s.iov[vecs].SetLen(len(b))
					want += len(b)
					vecs++
				}
			}
		}
		s.msg.SetIovlen(vecs)
		n, errno := c.move(unix.SYS_SENDMSG, &s.msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno == unix.EAGAIN {
			return nil
		}
		if errno != 0 {
			// What the server had to say before it closed, if anything, does not matter.
			return ended(os.NewSyscallError("sendmsg", errno))
		}
		c.advance(n)
		if n < want {
			return nil // the socket is full
		}
	}
	return nil
}

// advance takes n bytes that are sent out of the queue.
func (c *Conn) advance(n int) {
	s := &c.send
	for n > 0 {
		r := &c.slots[s.ring[s.head%len(s.ring)]]
		left := len(r.head) + len(r.payload()) - s.sent
		if n < left {
			s.sent += n
			return
		}
		n -= left
		r.sent = true
		s.sent = 0
		s.head++
	}
}

// move is sendmsg or recvmsg.
func (c *Conn) move(call uintptr, m *unix.Msghdr, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.Syscall(call, uintptr(c.fd), uintptr(unsafe.Pointer(m)), flags)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}
