package nbd

import (
	"fmt"
	"strings"
)

var optionNames = map[Option]string{
	OptExportName: "EXPORT_NAME", OptAbort: "ABORT", OptList: "LIST", OptPeekExport: "PEEK_EXPORT",
	OptStartTLS: "STARTTLS", OptInfo: "INFO", OptGo: "GO", OptStructuredReply: "STRUCTURED_REPLY",
	OptListMetaContext: "LIST_META_CONTEXT", OptSetMetaContext: "SET_META_CONTEXT",
	OptExtendedHeaders: "EXTENDED_HEADERS",
}

var replyNames = map[OptionReply]string{
	RepAck: "ACK", RepServer: "SERVER", RepInfo: "INFO", RepMetaContext: "META_CONTEXT",
	RepErrUnsup: "ERR_UNSUP", RepErrPolicy: "ERR_POLICY", RepErrInvalid: "ERR_INVALID",
	RepErrPlatform: "ERR_PLATFORM", RepErrTLSReqd: "ERR_TLS_REQD", RepErrUnknown: "ERR_UNKNOWN",
	RepErrShutdown: "ERR_SHUTDOWN", RepErrBlockSizeReqd: "ERR_BLOCK_SIZE_REQD", RepErrTooBig: "ERR_TOO_BIG",
}

var commandNames = map[Command]string{
	CmdRead: "READ", CmdWrite: "WRITE", CmdDisc: "DISC", CmdFlush: "FLUSH", CmdTrim: "TRIM",
	CmdCache: "CACHE", CmdWriteZeroes: "WRITE_ZEROES", CmdBlockStatus: "BLOCK_STATUS", CmdResize: "RESIZE",
}

var chunkNames = map[ChunkType]string{
	ChunkNone: "NONE", ChunkOffsetData: "OFFSET_DATA", ChunkOffsetHole: "OFFSET_HOLE",
	ChunkBlockStatus: "BLOCK_STATUS", ChunkError: "ERROR", ChunkErrorOffset: "ERROR_OFFSET",
}

var errnoNames = map[Errno]string{
	0: "success", EPERM: "EPERM", EIO: "EIO", ENOMEM: "ENOMEM", EINVAL: "EINVAL", ENOSPC: "ENOSPC",
	EOVERFLOW: "EOVERFLOW", ENOTSUP: "ENOTSUP", ESHUTDOWN: "ESHUTDOWN",
}

var infoNames = map[Info]string{
	InfoExport: "EXPORT", InfoName: "NAME", InfoDescription: "DESCRIPTION", InfoBlockSize: "BLOCK_SIZE",
}

var (
	handshakeBits = []string{"FIXED_NEWSTYLE", "NO_ZEROES"}
	transmitBits  = []string{"HAS_FLAGS", "READ_ONLY", "SEND_FLUSH", "SEND_FUA", "ROTATIONAL", "SEND_TRIM", "SEND_WRITE_ZEROES", "SEND_DF", "CAN_MULTI_CONN", "SEND_RESIZE", "SEND_CACHE", "SEND_FAST_ZERO"}
	commandBits   = []string{"FUA", "NO_HOLE", "DF", "REQ_ONE", "FAST_ZERO"}
	replyBits     = []string{"DONE"}
)

// name looks v up; an unknown value shows as its number.
func name[T ~uint16 | ~uint32](names map[T]string, v T) string {
	if s, ok := names[v]; ok {
		return s
	}
	return fmt.Sprintf("unknown %#x", uint32(v))
}

// bits names the set bits, joined by "|"; an unknown bit shows as its number.
func bits[T ~uint16 | ~uint32](names []string, v T) string {
	if v == 0 {
		return "0"
	}
	var set []string
	for i := range 32 {
		if uint32(v)>>i&1 == 0 {
			continue
		}
		if i < len(names) {
			set = append(set, names[i])
		} else {
			set = append(set, fmt.Sprintf("%#x", uint32(1)<<i))
		}
	}
	return strings.Join(set, "|")
}

// String and the methods below give the specification's names.
func (o Option) String() string            { return name(optionNames, o) }
func (r OptionReply) String() string       { return name(replyNames, r) }
func (i Info) String() string              { return name(infoNames, i) }
func (c Command) String() string           { return name(commandNames, c) }
func (c ChunkType) String() string         { return name(chunkNames, c) }
func (e Errno) String() string             { return name(errnoNames, e) }
func (f HandshakeFlags) String() string    { return bits(handshakeBits, f) }
func (f ClientFlags) String() string       { return bits(handshakeBits, f) }
func (f TransmissionFlags) String() string { return bits(transmitBits, f) }
func (f CommandFlags) String() string      { return bits(commandBits, f) }
func (f ReplyFlags) String() string        { return bits(replyBits, f) }

// IsError reports whether a reply refuses its option.
func (r OptionReply) IsError() bool { return r&(1<<31) != 0 }

// IsError reports whether a chunk tells an error.
func (c ChunkType) IsError() bool { return c&(1<<15) != 0 }

// Error makes an Errno an error, so that clients can return it.
func (e Errno) Error() string { return "NBD error " + e.String() }
