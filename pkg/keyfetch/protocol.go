package keyfetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sealdisk/blockdev/luks2"
)

// The conversation: the engine writes one request, the child one response,
// each one JSON object in one message of a SOCK_SEQPACKET socket, and the child exits. No
// message ever holds a plaintext key.
const (
	protocolVersion = 1
	// maxMessage bounds a message, in bytes. A header with its token is about
	// 2 KiB.
	maxMessage = 64 << 10
)

const (
	opCreate = "create"
	opAttach = "attach"
	opReseal = "reseal"
)

// request asks for one operation on one disk.
type request struct {
	Version int    `json:"version"`
	Op      string `json:"op"`
	// Key is an id or alias, for create; empty is the project's default key.
	Key string `json:"key,omitempty"`
	// Header is the disk's (for create: what it is to be).
	Header *luks2.Header `json:"header"`
	// Next is what reseal seals.
	Next *luks2.Header `json:"next,omitempty"`
	// TimeoutMS is how long the child may take, in milliseconds.
	TimeoutMS int64 `json:"timeout_ms"`
}

// response is the outcome: Error, or the sealed header of create and reseal.
type response struct {
	Version int           `json:"version"`
	Header  *luks2.Header `json:"header,omitempty"`
	Error   *wireError    `json:"error,omitempty"`
	// Locked: the child's memory was locked as a whole.
	Locked bool `json:"locked"`
}

// errMessage is returned for a message that is no request or response of this version.
var errMessage = errors.New("malformed message")

func parseRequest(b []byte) (*request, error) {
	var q request
	if err := parse(b, &q); err != nil {
		return nil, err
	}
	if q.Version != protocolVersion {
		return nil, fmt.Errorf("%w: version %d, this is %d: was the program replaced while it ran?", errMessage, q.Version, protocolVersion)
	}
	if q.Header == nil || q.TimeoutMS <= 0 || (q.Next != nil) != (q.Op == opReseal) {
		return nil, fmt.Errorf("%w: incomplete request", errMessage)
	}
	switch q.Op {
	case opCreate, opAttach, opReseal:
		return &q, nil
	}
	return nil, fmt.Errorf("%w: unknown operation", errMessage)
}

func parseResponse(b []byte) (*response, error) {
	var p response
	if err := parse(b, &p); err != nil {
		return nil, err
	}
	if p.Version != protocolVersion {
		return nil, fmt.Errorf("%w: version %d, this is %d: was the program replaced while it ran?", errMessage, p.Version, protocolVersion)
	}
	return &p, nil
}

// parse decodes exactly one JSON object of known fields.
func parse(b []byte, v any) error {
	if len(b) > maxMessage {
		return fmt.Errorf("%w: longer than %d bytes", errMessage, maxMessage)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one object", errMessage)
	}
	return nil
}

// send writes v as one message.
func send(c net.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if len(b) > maxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d are sent", errMessage, len(b), maxMessage)
	}
	_, err = c.Write(b)
	return err
}

// receive reads one message; io.EOF says that the other side is gone.
func receive(c net.Conn) ([]byte, error) {
	b := make([]byte, maxMessage+1)
	n, err := c.Read(b) // one message; what does not fit is cut off
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// pair makes a connected pair of sockets; the second is to be handed to the
// child.
func pair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "key conversation")
	ours, err := connOf(os.NewFile(uintptr(fds[0]), "key conversation"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// connOf turns f, which it closes, into a connection.
func connOf(f *os.File) (net.Conn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("conversation: %w", err), f.Close())
	}
	return c, f.Close()
}

// milliseconds rounds d up.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
