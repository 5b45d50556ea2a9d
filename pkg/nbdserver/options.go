package nbdserver

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sealdisk/pkg/logfield"
	"sealdisk/pkg/nbd"
)

var be = binary.BigEndian

// metaID is the context id of base:allocation.
const metaID = 1

// errMalformed is returned by parsers of option data.
var (
	errMalformed = errors.New("malformed option data")
	errLongName  = fmt.Errorf("string longer than %d bytes", nbd.MaxString)
)

// known reports whether dispatch serves opt.
func known(opt nbd.Option) bool {
	switch opt {
	case nbd.OptExportName, nbd.OptAbort, nbd.OptList, nbd.OptStartTLS, nbd.OptInfo, nbd.OptGo,
		nbd.OptStructuredReply, nbd.OptListMetaContext, nbd.OptSetMetaContext:
		return true
	}
	return false
}

// dispatch answers one option; done when it began the transmission.
func (h *handshake) dispatch(opt nbd.Option, data []byte) (done bool, err error) {
	switch opt {
	case nbd.OptExportName:
		return true, h.exportName(data)
	case nbd.OptAbort:
		h.ack(opt)
		return false, errors.Join(errAborted, h.flush())
	case nbd.OptInfo, nbd.OptGo:
		return h.infoOrGo(opt, data), nil
	case nbd.OptListMetaContext, nbd.OptSetMetaContext:
		h.metaContext(opt, data)
		return false, nil
	case nbd.OptList, nbd.OptStructuredReply, nbd.OptStartTLS:
	default:
		h.fail(opt, nbd.RepErrUnsup, "unknown option")
		return false, nil
	}
	switch { // options without data
	case len(data) > 0:
		h.fail(opt, nbd.RepErrInvalid, "this option has no data")
	case opt == nbd.OptList:
		for _, name := range h.ex.List(h.peer) {
			p := be.AppendUint32(nil, uint32(len(name)))
			h.reply(opt, nbd.RepServer, append(p, name...))
		}
		h.ack(opt)
	case opt == nbd.OptStructuredReply:
		h.neg.structured = true
		h.ack(opt)
	default:
		h.fail(opt, nbd.RepErrUnsup, "TLS is not configured")
	}
	return false, nil
}

// open looks an export up. Whatever the reason, a peer that may not have it
// gets the same reply.
func (h *handshake) open(name string) (*Export, nbd.OptionReply, error) {
	e, err := h.ex.Open(h.peer, name)
	switch {
	case err != nil:
		if !errors.Is(err, ErrUnknownExport) {
			h.log.Warn("export not opened", logfield.Export(name), logfield.Err(err))
		}
		return nil, nbd.RepErrUnknown, ErrUnknownExport
	case e.Device == nil || e.Locks == nil || e.Gate == nil:
		h.log.Error("export is incomplete", logfield.Export(name))
		return nil, nbd.RepErrUnknown, ErrUnknownExport
	case e.Gate.Closed():
		return nil, nbd.RepErrShutdown, ErrDetaching
	}
	return e, 0, nil
}

// exportName serves the old way in, which has no error reply: what is wrong
// ends the connection.
func (h *handshake) exportName(data []byte) error {
	if len(data) > nbd.MaxString {
		return errLongName
	}
	e, _, err := h.open(string(data))
	if err != nil {
		return err
	}
	if err := h.choose(e, string(data)); err != nil {
		return err
	}
	h.out = be.AppendUint64(h.out, uint64(e.Device.Size()))
	h.out = be.AppendUint16(h.out, uint16(transmissionFlags(e, h.neg.structured)))
	if !h.noZeroes {
		h.out = append(h.out, make([]byte, nbd.ExportNamePad)...)
	}
	return nil
}

// choose ends the haggling unless the export takes no more connections. A
// metadata context counts only for the export it was selected for.
func (h *handshake) choose(e *Export, name string) error {
	if err := h.join(e); err != nil {
		return err
	}
	h.neg.export = e
	h.neg.meta = h.neg.meta && h.neg.metaName == name
	return nil
}

// transmissionFlags tells what e offers.
func transmissionFlags(e *Export, structured bool) nbd.TransmissionFlags {
	f := nbd.FlagHasFlags | nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagCanMultiConn | nbd.FlagSendCache
	if e.ReadOnly {
		f |= nbd.FlagReadOnly
	} else {
		f |= nbd.FlagSendTrim | nbd.FlagSendWriteZeroes | nbd.FlagSendFastZero
	}
	if structured {
		f |= nbd.FlagSendDF
	}
	return f
}

// infoOrGo serves INFO and GO, which differ in whether transmission begins.
func (h *handshake) infoOrGo(opt nbd.Option, data []byte) (done bool) {
	name, infos, err := parseInfo(data)
	if err != nil {
		h.malformed(opt, err)
		return false
	}
	e, rep, err := h.open(name)
	if err != nil {
		h.fail(opt, rep, err.Error())
		return false
	}
	if opt == nbd.OptGo {
		if err := h.choose(e, name); err != nil {
			rep := nbd.RepErrPolicy
			if errors.Is(err, ErrDetaching) {
				rep = nbd.RepErrShutdown
			}
			h.log.Warn("connection refused", logfield.Export(e.Name), logfield.Err(err))
			h.fail(opt, rep, err.Error())
			return false
		}
	}
	h.reply(opt, nbd.RepInfo, nbd.AppendInfoExport(nil, uint64(e.Device.Size()), transmissionFlags(e, h.neg.structured)))
	var told [4]bool
	for ; len(infos) > 0; infos = infos[2:] {
		i := nbd.Info(be.Uint16(infos))
		if int(i) >= len(told) || told[i] {
			continue // unknown ones are ignored, each is told once
		}
		told[i] = true
		p := be.AppendUint16(nil, uint16(i))
		switch {
		case i == nbd.InfoName:
			h.reply(opt, nbd.RepInfo, append(p, e.Name...))
		case i == nbd.InfoDescription && e.Description != "":
			h.reply(opt, nbd.RepInfo, append(p, e.Description...))
		case i == nbd.InfoBlockSize:
			h.reply(opt, nbd.RepInfo, nbd.AppendInfoBlockSize(nil, nbd.MinBlock, nbd.PreferredBlock, nbd.MaxPayload))
		}
	}
	h.ack(opt)
	return opt == nbd.OptGo
}

// malformed answers option data that do not parse.
func (h *handshake) malformed(opt nbd.Option, err error) {
	if errors.Is(err, errLongName) {
		h.fail(opt, nbd.RepErrTooBig, err.Error())
		return
	}
	h.fail(opt, nbd.RepErrInvalid, err.Error())
}

// metaContext serves LIST and SET_META_CONTEXT. A SET that fails leaves
// nothing selected.
func (h *handshake) metaContext(opt nbd.Option, data []byte) {
	set := opt == nbd.OptSetMetaContext
	if set {
		h.neg.meta, h.neg.metaName = false, ""
	}
	if !h.neg.structured {
		h.fail(opt, nbd.RepErrInvalid, "structured replies come first")
		return
	}
	name, queries, err := parseMeta(data)
	if err != nil {
		h.malformed(opt, err)
		return
	}
	if _, rep, err := h.open(name); err != nil {
		h.fail(opt, rep, err.Error())
		return
	}
	found := !set && len(queries) == 0
	for _, q := range queries {
		found = found || q == nbd.ContextAllocation || !set && q == nbd.ContextNamespace
	}
	if found {
		id := uint32(0) // reserved in LIST
		if set {
			id = metaID
			h.neg.meta, h.neg.metaName = true, name
		}
		h.reply(opt, nbd.RepMetaContext, append(be.AppendUint32(nil, id), nbd.ContextAllocation...))
	}
	h.ack(opt)
}

// parseInfo splits the data of INFO and GO into name and information
// requests, two bytes each.
func parseInfo(data []byte) (name string, infos []byte, err error) {
	name, rest, err := takeString(data)
	if err != nil {
		return "", nil, err
	}
	if len(rest) < 2 || len(rest)-2 != 2*int(be.Uint16(rest)) {
		return "", nil, errMalformed
	}
	return name, rest[2:], nil
}

// parseMeta splits the data of LIST and SET_META_CONTEXT.
func parseMeta(data []byte) (name string, queries []string, err error) {
	name, rest, err := takeString(data)
	if err != nil {
		return "", nil, err
	}
	if len(rest) < 4 {
		return "", nil, errMalformed
	}
	n := be.Uint32(rest)
	rest = rest[4:]
	if int64(n) > int64(len(rest)/4) {
		return "", nil, errMalformed
	}
	for range n {
		var q string
		if q, rest, err = takeString(rest); err != nil {
			return "", nil, err
		}
		queries = append(queries, q)
	}
	if len(rest) > 0 {
		return "", nil, errMalformed
	}
	return name, queries, nil
}

// takeString takes a string with its length before it.
func takeString(b []byte) (s string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, errMalformed
	}
	n := be.Uint32(b)
	b = b[4:]
	switch {
	case int64(n) > int64(len(b)):
		return "", nil, errMalformed
	case n > nbd.MaxString:
		return "", nil, errLongName
	}
	return string(b[:n]), b[n:], nil
}
