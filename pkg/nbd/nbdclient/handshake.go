package nbdclient

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"

	"sealdisk/pkg/nbd"
)

var be = binary.BigEndian

// maxOptionReply bounds the payload of one reply to an option, in bytes.
const maxOptionReply = 64 << 10

// maxOptionReplies bounds the number of replies to one option.
const maxOptionReplies = 256

// OptionError is returned when the server refuses an option of the handshake: the export
// does not exist for this client (nbd.RepErrUnknown), is being detached (RepErrShutdown), wants
// TLS (RepErrTLSReqd) and so on.
type OptionError struct {
	Option  nbd.Option
	Reply   nbd.OptionReply
	Message string // the server's words, untrusted
}

func (e *OptionError) Error() string {
	s := fmt.Sprintf("the NBD server refuses %v: %v", e.Option, e.Reply)
	if e.Message != "" {
		s += fmt.Sprintf(" %q", e.Message)
	}
	return s
}

// ParseURI takes the socket and the export out of an URI as `disk attach` prints it,
// nbd+unix:///EXPORT?socket=PATH (the NBD project's doc/uri.md).
func ParseURI(uri string) (socket, export string, err error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", "", err
	}
	socket = u.Query().Get("socket")
	if u.Scheme != "nbd+unix" || u.Host != "" || socket == "" || len(u.Path) == 0 {
		return "", "", fmt.Errorf("%q is not of the form nbd+unix:///EXPORT?socket=PATH", uri)
	}
	return socket, u.Path[1:], nil
}

// shake opens the export ("Newstyle negotiation").
func (c *Conn) shake(rw net.Conn, export string, allocation bool) error {
	if len(export) > nbd.MaxString {
		return fmt.Errorf("the export's name has %d bytes, more than NBD's %d", len(export), nbd.MaxString)
	}
	b := make([]byte, nbd.NewstyleHeaderSize)
	if _, err := io.ReadFull(rw, b); err != nil {
		return ended(err)
	}
	h := nbd.GetNewstyleHeader(b)
	server := nbd.HandshakeFlags(h.HandshakeFlags)
	if h.OldstyleMagic != nbd.MagicInit || h.OptionMagic != nbd.MagicOption || server&nbd.FlagFixedNewstyle == 0 {
		return broken("greeting % x", b)
	}
	client := nbd.ClientFixedNewstyle
	if server&nbd.FlagNoZeroes != 0 {
		client |= nbd.ClientNoZeroes
	}
	if _, err := rw.Write(be.AppendUint32(nil, uint32(client))); err != nil {
		return ended(err)
	}
	if allocation {
		if err := c.askAllocation(rw, export); err != nil {
			return err
		}
	}
	name := append(be.AppendUint32(nil, uint32(len(export))), export...)
	told := false
	err := ask(rw, nbd.OptGo, append(name, 0, 0), func(t nbd.OptionReply, data []byte) error {
		if t != nbd.RepInfo || len(data) < 2 || nbd.Info(be.Uint16(data)) != nbd.InfoExport {
			return nil
		}
		if len(data) != nbd.InfoExportSize || data[2] > 0x7f { // more than an int64 holds
			return broken("INFO_EXPORT % x", data)
		}
		c.size, c.flags, told = int64(be.Uint64(data[2:])), nbd.TransmissionFlags(be.Uint16(data[10:])), true
		return nil
	})
	if err == nil && !told {
		err = broken("GO without INFO_EXPORT")
	}
	return err
}

// askAllocation asks for structured replies and base:allocation. A refusal is no error.
func (c *Conn) askAllocation(rw net.Conn, export string) error {
	err := ask(rw, nbd.OptStructuredReply, nil, nil)
	if _, refused := err.(*OptionError); refused {
		return nil
	}
	if err != nil {
		return err
	}
	c.structured = true
	data := append(be.AppendUint32(nil, uint32(len(export))), export...)
	data = be.AppendUint32(data, 1)
	data = be.AppendUint32(data, uint32(len(nbd.ContextAllocation)))
	err = ask(rw, nbd.OptSetMetaContext, append(data, nbd.ContextAllocation...), func(t nbd.OptionReply, data []byte) error {
		if t == nbd.RepMetaContext && len(data) > nbd.ContextIDSize && string(data[nbd.ContextIDSize:]) == nbd.ContextAllocation {
			c.allocation = true
		}
		return nil
	})
	if _, refused := err.(*OptionError); refused {
		c.allocation = false // GO will say what is wrong, if something is
		return nil
	}
	return err
}

// ask sends an option and gives each reply to each before ACK; a refusal is an *OptionError.
func ask(rw net.Conn, opt nbd.Option, data []byte, each func(nbd.OptionReply, []byte) error) error {
	b := make([]byte, nbd.OptionHeaderSize, nbd.OptionHeaderSize+len(data))
	nbd.PutOptionHeader(b, nbd.OptionHeader{OptionMagic: nbd.MagicOption, ID: uint32(opt), Length: uint32(len(data))})
	if _, err := rw.Write(append(b, data...)); err != nil {
		return ended(err)
	}
	for range maxOptionReplies {
		head := make([]byte, nbd.OptionReplyHeaderSize)
		if _, err := io.ReadFull(rw, head); err != nil {
			return ended(err)
		}
		h := nbd.GetOptionReplyHeader(head)
		if h.ReplyMagic != nbd.MagicOptionReply || nbd.Option(h.ID) != opt || h.Length > maxOptionReply {
			return broken("reply % x to %v", head, opt)
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(rw, payload); err != nil {
			return ended(err)
		}
		switch t := nbd.OptionReply(h.Type); {
		case t == nbd.RepAck:
			return nil
		case t.IsError():
			return &OptionError{Option: opt, Reply: t, Message: string(payload)}
		case each != nil:
			if err := each(t, payload); err != nil {
				return err
			}
		}
	}
	return broken("more than %d replies to %v", maxOptionReplies, opt)
}
