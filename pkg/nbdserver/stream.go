package nbdserver

import (
	"errors"
	"time"
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
	setDeadline(t time.Time)
	// stopReads makes reads fail from now on.
	stopReads()
	// close ends the connection and wakes whoever reads or writes.
	close()
	// release gives the stream's resources back. Nobody uses it any more, apart from close and
	// stopReads.
	release()
}
