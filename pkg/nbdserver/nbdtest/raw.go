// Package nbdtest is a small NBD client for tests. Raw sends and expects bytes
// one by one, right or wrong; Client speaks the transmission phase with many
// requests at once and checks every reply against the protocol; Device makes a block
// device of it, so that the suites of blockdevtest run through a server.
package nbdtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/nbd"
)

var be = binary.BigEndian

// patience is how long a test waits for a server that has stopped answering.
const patience = 30 * time.Second

// Pair returns the two ends of a unix stream socket.
func Pair() (client, server *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return nil, nil, err
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1], nil
}

// Listener is a net.Listener whose connections are made by Dial.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
}

// NewListener returns a listener without an address.
func NewListener() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; only the first call counts.
func (l *Listener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "test", Net: "unix"} }

// Dial returns the client's end of a new connection.
func (l *Listener) Dial() (*net.UnixConn, error) {
	c, s, err := Pair()
	if err != nil {
		return nil, err
	}
	select {
	case l.conns <- s:
		return c, nil
	case <-l.closed:
		c.Close()
		s.Close()
		return nil, net.ErrClosed
	}
}

// Raw is a connection in the handshake. Its methods are for one goroutine.
type Raw struct {
	*net.UnixConn
}

// Reply is one reply to an option.
type Reply struct {
	Option nbd.Option
	Type   nbd.OptionReply
	Data   []byte
}

// Greet reads the greeting and answers it with flags.
func Greet(c *net.UnixConn, flags nbd.ClientFlags) (*Raw, error) {
	r := &Raw{c}
	b, err := r.Bytes(nbd.NewstyleHeaderSize)
	if err != nil {
		return nil, err
	}
	h := nbd.GetNewstyleHeader(b)
	want := uint16(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes)
	if h.OldstyleMagic != nbd.MagicInit || h.OptionMagic != nbd.MagicOption || h.HandshakeFlags != want {
		return nil, fmt.Errorf("greeting % x", b)
	}
	_, err = c.Write(be.AppendUint32(nil, uint32(flags)))
	return r, err
}

// Bytes reads n bytes. io.EOF when there is none.
func (r *Raw) Bytes(n int) ([]byte, error) {
	b := make([]byte, n)
	r.SetReadDeadline(time.Now().Add(patience))
	defer r.SetReadDeadline(time.Time{})
	_, err := io.ReadFull(r, b)
	return b, err
}

// Option encodes an option.
func Option(opt nbd.Option, data []byte) []byte {
	b := make([]byte, nbd.OptionHeaderSize, nbd.OptionHeaderSize+len(data))
	nbd.PutOptionHeader(b, nbd.OptionHeader{OptionMagic: nbd.MagicOption, ID: uint32(opt), Length: uint32(len(data))})
	return append(b, data...)
}

// Reply reads one reply.
func (r *Raw) Reply() (Reply, error) {
	b, err := r.Bytes(nbd.OptionReplyHeaderSize)
	if err != nil {
		return Reply{}, err
	}
	h := nbd.GetOptionReplyHeader(b)
	if h.ReplyMagic != nbd.MagicOptionReply || h.Length > 1<<20 {
		return Reply{}, fmt.Errorf("reply % x", b)
	}
	data, err := r.Bytes(int(h.Length))
	if err == io.EOF && h.Length == 0 {
		err = nil
	}
	return Reply{nbd.Option(h.ID), nbd.OptionReply(h.Type), data}, err
}

// Ask sends an option and reads its replies up to ACK or an error.
func (r *Raw) Ask(opt nbd.Option, data []byte) ([]Reply, error) {
	if _, err := r.Write(Option(opt, data)); err != nil {
		return nil, err
	}
	var all []Reply
	for {
		rep, err := r.Reply()
		if err != nil {
			return all, err
		}
		if rep.Option != opt {
			return all, fmt.Errorf("reply to %v instead of %v", rep.Option, opt)
		}
		all = append(all, rep)
		if rep.Type == nbd.RepAck || rep.Type.IsError() {
			return all, nil
		}
	}
}

// String encodes a string with its length before it.
func String(s string) []byte { return append(be.AppendUint32(nil, uint32(len(s))), s...) }

// InfoData encodes the data of INFO and GO.
func InfoData(name string, infos ...nbd.Info) []byte {
	b := be.AppendUint16(String(name), uint16(len(infos)))
	for _, i := range infos {
		b = be.AppendUint16(b, uint16(i))
	}
	return b
}

// MetaData encodes the data of LIST and SET_META_CONTEXT.
func MetaData(name string, queries ...string) []byte {
	b := be.AppendUint32(String(name), uint32(len(queries)))
	for _, q := range queries {
		b = append(b, String(q)...)
	}
	return b
}

// Features are what Connect negotiates.
type Features struct {
	Structured bool
	Meta       bool // base:allocation; needs Structured
}

// Connect shakes hands and enters the transmission of the export name.
func Connect(c *net.UnixConn, name string, f Features) (*Client, error) {
	r, err := Greet(c, nbd.ClientFixedNewstyle|nbd.ClientNoZeroes)
	if err != nil {
		return nil, err
	}
	ask := func(opt nbd.Option, data []byte) (all []Reply, err error) {
		if all, err = r.Ask(opt, data); err == nil && all[len(all)-1].Type != nbd.RepAck {
			err = fmt.Errorf("%v: %v", opt, all[len(all)-1].Type)
		}
		return all, err
	}
	if f.Structured {
		if _, err := ask(nbd.OptStructuredReply, nil); err != nil {
			return nil, err
		}
	}
	if f.Meta {
		if _, err := ask(nbd.OptSetMetaContext, MetaData(name, nbd.ContextAllocation)); err != nil {
			return nil, err
		}
	}
	all, err := ask(nbd.OptGo, InfoData(name))
	if err != nil {
		return nil, err
	}
	for _, rep := range all {
		if rep.Type == nbd.RepInfo && nbd.Info(be.Uint16(rep.Data)) == nbd.InfoExport {
			return NewClient(c, be.Uint64(rep.Data[2:]), nbd.TransmissionFlags(be.Uint16(rep.Data[10:])), f), nil
		}
	}
	return nil, fmt.Errorf("GO without INFO_EXPORT")
}
