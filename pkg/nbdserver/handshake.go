package nbdserver

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"sealdisk/pkg/nbd"
)

// Bounds of the handshake.
const (
	maxOptions    = 32
	maxOptionData = 64 << 10 // kept in memory
	maxDrain      = 1 << 20  // longer data are not drained: the connection is closed
)

var (
	errAborted     = errors.New("client ended the handshake")
	errBadMagic    = errors.New("wrong magic")
	errTooManyOpts = fmt.Errorf("more than %d options", maxOptions)
)

// negotiated is what the handshake settled. It begins anew at STARTTLS, where
// buffered bytes must be refused as well (CVE-2021-3716).
type negotiated struct {
	export     *Export
	structured bool
	// meta: base:allocation was selected, for the export named metaName.
	meta     bool
	metaName string
}

// handshake speaks fixed newstyle with one client until it has chosen an
// export.
type handshake struct {
	in       *input
	out      []byte // gathered replies
	ex       Exports
	join     func(*Export) error // registers the connection with the export
	peer     Peer
	log      *zap.Logger
	fixed    bool
	noZeroes bool
	neg      negotiated
	data     []byte
}

// run greets the client and serves its options. When it returns nil, the last
// reply is still in h.out: it may only go out once the connection is ready to serve.
func (h *handshake) run() error {
	var hello [nbd.NewstyleHeaderSize]byte
	nbd.PutNewstyleHeader(hello[:], nbd.NewstyleHeader{
		OldstyleMagic: nbd.MagicInit, OptionMagic: nbd.MagicOption,
		HandshakeFlags: uint16(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes),
	})
	h.out = append(h.out, hello[:]...)
	if err := h.flush(); err != nil {
		return err
	}
	b, err := h.in.need(4)
	if err != nil {
		return err
	}
	flags := nbd.ClientFlags(be.Uint32(b))
	h.in.skip(4)
	if unknown := flags &^ (nbd.ClientFixedNewstyle | nbd.ClientNoZeroes); unknown != 0 {
		return fmt.Errorf("unknown client flags %v", unknown)
	}
	h.fixed = flags&nbd.ClientFixedNewstyle != 0
	h.noZeroes = flags&nbd.ClientNoZeroes != 0
	for range maxOptions {
		done, err := h.option()
		if done || err != nil {
			return err
		}
		if err := h.flush(); err != nil {
			return err
		}
	}
	return errTooManyOpts
}

// option reads one option with its data and answers it; done when an export was chosen.
func (h *handshake) option() (done bool, err error) {
	b, err := h.in.need(nbd.OptionHeaderSize)
	if err != nil {
		return false, err
	}
	hdr := nbd.GetOptionHeader(b)
	if hdr.OptionMagic != nbd.MagicOption {
		return false, fmt.Errorf("option: %w", errBadMagic)
	}
	h.in.skip(nbd.OptionHeaderSize)
	opt := nbd.Option(hdr.ID)
	if !h.fixed && opt != nbd.OptExportName {
		return false, fmt.Errorf("option %v outside fixed newstyle", opt)
	}
	if hdr.Length > maxOptionData {
		return false, h.oversized(opt, int64(hdr.Length))
	}
	if cap(h.data) < int(hdr.Length) {
		h.data = make([]byte, hdr.Length)
	}
	h.data = h.data[:hdr.Length]
	if err := h.in.readFull(h.data); err != nil {
		return false, err
	}
	return h.dispatch(opt, h.data)
}

// oversized refuses an option whose data are too long to keep. Up to maxDrain they are drained and the
// next option parses; beyond, the reply is the last thing said.
func (h *handshake) oversized(opt nbd.Option, n int64) error {
	if opt == nbd.OptExportName {
		return fmt.Errorf("export name of %d bytes", n)
	}
	if n > maxDrain {
		h.fail(opt, nbd.RepErrTooBig, "option data too long")
		return errors.Join(fmt.Errorf("option %v with %d bytes of data", opt, n), h.flush())
	}
	if err := h.in.discard(n); err != nil {
		return err
	}
	if !known(opt) {
		h.fail(opt, nbd.RepErrUnsup, "unknown option")
	} else {
		h.fail(opt, nbd.RepErrTooBig, "option data too long")
	}
	return nil
}

// reply gathers one reply with its payload.
func (h *handshake) reply(opt nbd.Option, rep nbd.OptionReply, payload []byte) {
	h.out = append(nbd.AppendOptionReply(h.out, opt, rep, len(payload)), payload...)
}

func (h *handshake) ack(opt nbd.Option) { h.reply(opt, nbd.RepAck, nil) }

// fail gathers an error reply with a message for people.
func (h *handshake) fail(opt nbd.Option, rep nbd.OptionReply, msg string) {
	h.reply(opt, rep, []byte(msg))
}

// flush sends what was gathered.
func (h *handshake) flush() error {
	err := writeAll(h.in.s, h.out)
	h.out = h.out[:0]
	return err
}

func writeAll(s stream, b []byte) error {
	for len(b) > 0 {
		n, err := s.writev([][]byte{b})
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
