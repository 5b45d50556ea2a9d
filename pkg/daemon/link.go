package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
)

// The link between engine and launcher is a pair of SOCK_SEQPACKET sockets.
// Each message is one JSON object, with descriptors where said.

// fromEngine is all that the engine ever asks: start a key child with the one
// or two descriptors that come with the message.
type fromEngine struct {
	Op        string `json:"op"` // "fetch"
	ID        uint64 `json:"id"` // of the engine's choosing, repeated in the answer
	TimeoutMS int64  `json:"timeout_ms"`
}

const opFetch = "fetch"

// fromLauncher answers one fetch, or tells (ID 0) of the processes.
type fromLauncher struct {
	ID    uint64         `json:"id,omitempty"`
	Error string         `json:"error,omitempty"` // "" if the child was started
	State *launcherState `json:"state,omitempty"`
}

// launcherState is what the engine can't know by itself.
type launcherState struct {
	Processes api.Processes `json:"processes"`
	KMSSocket string        `json:"kms_socket"`
	Embedded  bool          `json:"embedded"` // the KMS is the embedded one
}

const (
	maxLinkMessage = 4096 // bytes
	maxLinkFiles   = 2
)

var errLinkMessage = errors.New("malformed message between engine and launcher")

// linkPair makes the two ends; theirs is for the child.
func linkPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "launcher link")
	ours, err = linkOf(os.NewFile(uintptr(fds[0]), "launcher link"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// linkOf turns f, which it closes, into a connection.
func linkOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("launcher link: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("launcher link: it is a %T", c), c.Close())
	}
	return u, nil
}

// sendLink writes one message with files, which stay the caller's.
func sendLink(c *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxLinkMessage || len(files) > maxLinkFiles {
		return errLinkMessage
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	return err
}

// receiveLink reads one message into v. The files that came with it are the
// caller's, also when an error is returned with them.
func receiveLink(c *net.UnixConn, v any) ([]*os.File, error) {
	b := make([]byte, maxLinkMessage+1)
	// Room for more than is allowed, so that too many can be told from enough.
	oob := make([]byte, unix.CmsgSpace(4*(maxLinkFiles+2)))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	files, err := takeFiles(oob[:oobn])
	switch {
	case err != nil:
		return files, err
	case n == 0 && oobn == 0:
		return files, net.ErrClosed
	case n > maxLinkMessage, flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0, len(files) > maxLinkFiles:
		return files, errLinkMessage
	}
	d := json.NewDecoder(bytes.NewReader(b[:n]))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return files, fmt.Errorf("%w: %w", errLinkMessage, err)
	}
	return files, nil
}

// takeFiles returns the descriptors in a control message.
func takeFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errLinkMessage, err)
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, fmt.Errorf("%w: %w", errLinkMessage, err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "from the engine"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
