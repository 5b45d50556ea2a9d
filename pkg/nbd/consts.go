// Package nbd is the NBD wire protocol: its constants, typed, and the
// encoding of its headers, written by hand so that nothing allocates.
//
// Values and headers that github.com/pojntfx/go-nbd defines are taken from
// there; this file adds the rest. The source of all is the protocol
// description, https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md,
// whose section names are cited. All integers on the wire are big endian.
//
// The package does no input or output and knows nothing of devices.
package nbd

import "github.com/pojntfx/go-nbd/pkg/protocol"

// Magic numbers ("Newstyle negotiation", "Transmission").
const (
	MagicInit            = protocol.NEGOTIATION_MAGIC_OLDSTYLE // "NBDMAGIC"
	MagicOption          = protocol.NEGOTIATION_MAGIC_OPTION   // "IHAVEOPT"
	MagicOptionReply     = protocol.NEGOTIATION_MAGIC_REPLY
	MagicRequest         = protocol.TRANSMISSION_MAGIC_REQUEST
	MagicSimpleReply     = protocol.TRANSMISSION_MAGIC_REPLY
	MagicStructuredReply = uint32(0x668e33ef)
)

// Limits of the protocol and of this project.
const (
	// MaxString is the longest name or query ("Values": strings SHOULD be
	// at most 4096 bytes), in bytes.
	MaxString = 4096
	// MaxPayload is the longest READ or WRITE, in bytes; the largest that
	// clients may count on ("Block size constraints").
	MaxPayload = 32 << 20
	// MinBlock and PreferredBlock are what INFO_BLOCK_SIZE tells, in bytes.
	MinBlock       = 1
	PreferredBlock = 4096
	// ExportNamePad is the number of zero bytes that end the reply to
	// OPT_EXPORT_NAME unless both sides set NO_ZEROES.
	ExportNamePad = 124
)

// HandshakeFlags are sent first by the server ("Handshake flags").
type HandshakeFlags uint16

const (
	FlagFixedNewstyle HandshakeFlags = HandshakeFlags(protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE)
	FlagNoZeroes      HandshakeFlags = 1 << 1
)

// ClientFlags answer them ("Client flags").
type ClientFlags uint32

const (
	ClientFixedNewstyle ClientFlags = 1 << 0
	ClientNoZeroes      ClientFlags = 1 << 1
)

// TransmissionFlags describe an export ("Transmission flags").
type TransmissionFlags uint16

const (
	FlagHasFlags        TransmissionFlags = TransmissionFlags(protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS)
	FlagReadOnly        TransmissionFlags = 1 << 1
	FlagSendFlush       TransmissionFlags = 1 << 2
	FlagSendFUA         TransmissionFlags = 1 << 3
	FlagRotational      TransmissionFlags = 1 << 4
	FlagSendTrim        TransmissionFlags = 1 << 5
	FlagSendWriteZeroes TransmissionFlags = 1 << 6
	FlagSendDF          TransmissionFlags = 1 << 7
	FlagCanMultiConn    TransmissionFlags = TransmissionFlags(protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN)
	FlagSendResize      TransmissionFlags = 1 << 9
	FlagSendCache       TransmissionFlags = 1 << 10
	FlagSendFastZero    TransmissionFlags = 1 << 11
)

// Option is a request of the handshake ("Option types").
type Option uint32

const (
	OptExportName      Option = 1
	OptAbort           Option = Option(protocol.NEGOTIATION_ID_OPTION_ABORT)
	OptList            Option = Option(protocol.NEGOTIATION_ID_OPTION_LIST)
	OptPeekExport      Option = 4 // withdrawn
	OptStartTLS        Option = 5
	OptInfo            Option = Option(protocol.NEGOTIATION_ID_OPTION_INFO)
	OptGo              Option = Option(protocol.NEGOTIATION_ID_OPTION_GO)
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
	OptExtendedHeaders Option = 11
)

// OptionReply answers an option ("Option reply types"). Errors have bit 31 set.
type OptionReply uint32

const (
	RepAck              OptionReply = OptionReply(protocol.NEGOTIATION_TYPE_REPLY_ACK)
	RepServer           OptionReply = OptionReply(protocol.NEGOTIATION_TYPE_REPLY_SERVER)
	RepInfo             OptionReply = OptionReply(protocol.NEGOTIATION_TYPE_REPLY_INFO)
	RepMetaContext      OptionReply = 4
	RepErrUnsup         OptionReply = OptionReply(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED)
	RepErrPolicy        OptionReply = 1<<31 | 2
	RepErrInvalid       OptionReply = 1<<31 | 3
	RepErrPlatform      OptionReply = 1<<31 | 4
	RepErrTLSReqd       OptionReply = 1<<31 | 5
	RepErrUnknown       OptionReply = OptionReply(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN)
	RepErrShutdown      OptionReply = 1<<31 | 7
	RepErrBlockSizeReqd OptionReply = 1<<31 | 8
	RepErrTooBig        OptionReply = 1<<31 | 9
)

// Info is a kind of NBD_REP_INFO ("Option reply types", NBD_REP_INFO).
type Info uint16

const (
	InfoExport      Info = Info(protocol.NEGOTIATION_TYPE_INFO_EXPORT)
	InfoName        Info = Info(protocol.NEGOTIATION_TYPE_INFO_NAME)
	InfoDescription Info = Info(protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION)
	InfoBlockSize   Info = Info(protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE)
)

// The one metadata context ("Metadata querying", base:allocation) and the
// states of its descriptors.
const (
	ContextNamespace  = "base:"
	ContextAllocation = "base:allocation"

	StateHole uint32 = 1 << 0 // no storage is allocated
	StateZero uint32 = 1 << 1 // reads as zeros
)

// Command is a request of the transmission phase ("Request types").
type Command uint16

const (
	CmdRead        Command = Command(protocol.TRANSMISSION_TYPE_REQUEST_READ)
	CmdWrite       Command = Command(protocol.TRANSMISSION_TYPE_REQUEST_WRITE)
	CmdDisc        Command = Command(protocol.TRANSMISSION_TYPE_REQUEST_DISC)
	CmdFlush       Command = 3
	CmdTrim        Command = 4
	CmdCache       Command = 5
	CmdWriteZeroes Command = 6
	CmdBlockStatus Command = 7
	CmdResize      Command = 8 // experimental, not served
)

// CommandFlags modify a request ("Command flags").
type CommandFlags uint16

const (
	FlagFUA      CommandFlags = 1 << 0
	FlagNoHole   CommandFlags = 1 << 1
	FlagDF       CommandFlags = 1 << 2
	FlagReqOne   CommandFlags = 1 << 3
	FlagFastZero CommandFlags = 1 << 4
)

// ReplyFlags of a structured reply chunk ("Structured reply flags").
type ReplyFlags uint16

// FlagDone marks a request's last chunk.
const FlagDone ReplyFlags = 1 << 0

// ChunkType is the type of a structured reply chunk ("Structured reply
// types"). Errors have bit 15 set.
type ChunkType uint16

const (
	ChunkNone        ChunkType = 0
	ChunkOffsetData  ChunkType = 1
	ChunkOffsetHole  ChunkType = 2
	ChunkBlockStatus ChunkType = 5
	ChunkError       ChunkType = 1<<15 | 1
	ChunkErrorOffset ChunkType = 1<<15 | 2
)

// Errno is an error on the wire ("Error values"). Zero is success.
type Errno uint32

const (
	EPERM     Errno = Errno(protocol.TRANSMISSION_ERROR_EPERM)
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = Errno(protocol.TRANSMISSION_ERROR_EINVAL)
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

// Headers that go-nbd defines; Put and Get functions encode them.
type (
	// NewstyleHeader is the server's greeting.
	NewstyleHeader = protocol.NegotiationNewstyleHeader
	// OptionHeader begins every option.
	OptionHeader = protocol.NegotiationOptionHeader
	// OptionReplyHeader begins every reply to an option.
	OptionReplyHeader = protocol.NegotiationReplyHeader
	// InfoExportReply is the payload of NBD_INFO_EXPORT.
	InfoExportReply = protocol.NegotiationReplyInfo
	// InfoBlockSizeReply is the payload of NBD_INFO_BLOCK_SIZE.
	InfoBlockSizeReply = protocol.NegotiationReplyBlockSize
	// RequestHeader begins every request of the transmission phase. Handle
	// is the cookie: opaque, given back as it came.
	RequestHeader = protocol.TransmissionRequestHeader
	// SimpleReplyHeader begins a simple reply.
	SimpleReplyHeader = protocol.TransmissionReplyHeader
)

// ChunkHeader begins every chunk of a structured reply.
type ChunkHeader struct {
	Magic  uint32
	Flags  ReplyFlags
	Type   ChunkType
	Cookie uint64
	Length uint32 // of the payload that follows, in bytes
}

// Sizes of the encoded headers, in bytes.
const (
	NewstyleHeaderSize    = 18
	OptionHeaderSize      = 16
	OptionReplyHeaderSize = 20
	InfoExportSize        = 12
	InfoBlockSizeSize     = 14
	RequestHeaderSize     = 28
	SimpleReplySize       = 16
	ChunkHeaderSize       = 20
	ChunkOffsetSize       = 8 // begins the payload of OFFSET_DATA
	ChunkErrorSize        = 6 // begins the payload of ERROR: errno, message length
	ContextIDSize         = 4 // begins the payload of BLOCK_STATUS
	DescriptorSize        = 8 // one extent of BLOCK_STATUS: length, state
)
