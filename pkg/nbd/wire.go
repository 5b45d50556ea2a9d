package nbd

import "encoding/binary"

// The functions of this file encode and decode the headers. Put functions
// need room for the header's size at the start of b and Get functions as many
// bytes; less is a programmer's mistake and panics.

var be = binary.BigEndian

// PutNewstyleHeader encodes the server's greeting.
func PutNewstyleHeader(b []byte, h NewstyleHeader) {
	_ = b[NewstyleHeaderSize-1]
	be.PutUint64(b, h.OldstyleMagic)
	be.PutUint64(b[8:], h.OptionMagic)
	be.PutUint16(b[16:], h.HandshakeFlags)
}

// GetNewstyleHeader decodes the server's greeting.
func GetNewstyleHeader(b []byte) NewstyleHeader {
	_ = b[NewstyleHeaderSize-1]
	return NewstyleHeader{OldstyleMagic: be.Uint64(b), OptionMagic: be.Uint64(b[8:]), HandshakeFlags: be.Uint16(b[16:])}
}

// PutOptionHeader encodes the head of an option.
func PutOptionHeader(b []byte, h OptionHeader) {
	_ = b[OptionHeaderSize-1]
	be.PutUint64(b, h.OptionMagic)
	be.PutUint32(b[8:], h.ID)
	be.PutUint32(b[12:], h.Length)
}

// GetOptionHeader decodes the head of an option. The magic is not checked.
func GetOptionHeader(b []byte) OptionHeader {
	_ = b[OptionHeaderSize-1]
	return OptionHeader{OptionMagic: be.Uint64(b), ID: be.Uint32(b[8:]), Length: be.Uint32(b[12:])}
}

// AppendOptionReply appends the head of a reply to opt, for a payload of n
// bytes that the caller appends.
func AppendOptionReply(b []byte, opt Option, rep OptionReply, n int) []byte {
	b = be.AppendUint64(b, MagicOptionReply)
	b = be.AppendUint32(b, uint32(opt))
	b = be.AppendUint32(b, uint32(rep))
	return be.AppendUint32(b, uint32(n))
}

// GetOptionReplyHeader decodes the head of a reply to an option.
func GetOptionReplyHeader(b []byte) OptionReplyHeader {
	_ = b[OptionReplyHeaderSize-1]
	return OptionReplyHeader{ReplyMagic: be.Uint64(b), ID: be.Uint32(b[8:]), Type: be.Uint32(b[12:]), Length: be.Uint32(b[16:])}
}

// AppendInfoExport appends the payload of NBD_INFO_EXPORT for a size in bytes.
func AppendInfoExport(b []byte, size uint64, f TransmissionFlags) []byte {
	b = be.AppendUint16(b, uint16(InfoExport))
	b = be.AppendUint64(b, size)
	return be.AppendUint16(b, uint16(f))
}

// AppendInfoBlockSize appends the payload of NBD_INFO_BLOCK_SIZE; sizes in bytes.
func AppendInfoBlockSize(b []byte, minimum, preferred, maximum uint32) []byte {
	b = be.AppendUint16(b, uint16(InfoBlockSize))
	b = be.AppendUint32(b, minimum)
	b = be.AppendUint32(b, preferred)
	return be.AppendUint32(b, maximum)
}

// PutRequestHeader encodes a request.
func PutRequestHeader(b []byte, h *RequestHeader) {
	_ = b[RequestHeaderSize-1]
	be.PutUint32(b, h.RequestMagic)
	be.PutUint16(b[4:], h.CommandFlags)
	be.PutUint16(b[6:], h.Type)
	be.PutUint64(b[8:], h.Handle)
	be.PutUint64(b[16:], h.Offset)
	be.PutUint32(b[24:], h.Length)
}

// GetRequestHeader decodes a request into h. The magic is not checked.
func GetRequestHeader(b []byte, h *RequestHeader) {
	_ = b[RequestHeaderSize-1]
	h.RequestMagic = be.Uint32(b)
	h.CommandFlags = be.Uint16(b[4:])
	h.Type = be.Uint16(b[6:])
	h.Handle = be.Uint64(b[8:])
	h.Offset = be.Uint64(b[16:])
	h.Length = be.Uint32(b[24:])
}

// PutSimpleReply encodes a simple reply and returns its size.
func PutSimpleReply(b []byte, cookie uint64, e Errno) int {
	_ = b[SimpleReplySize-1]
	be.PutUint32(b, MagicSimpleReply)
	be.PutUint32(b[4:], uint32(e))
	be.PutUint64(b[8:], cookie)
	return SimpleReplySize
}

// GetSimpleReply decodes a simple reply. The magic is not checked.
func GetSimpleReply(b []byte) SimpleReplyHeader {
	_ = b[SimpleReplySize-1]
	return SimpleReplyHeader{ReplyMagic: be.Uint32(b), Error: be.Uint32(b[4:]), Handle: be.Uint64(b[8:])}
}

// PutChunkHeader encodes the head of a structured reply chunk and returns its
// size.
func PutChunkHeader(b []byte, f ReplyFlags, t ChunkType, cookie uint64, length uint32) int {
	_ = b[ChunkHeaderSize-1]
	be.PutUint32(b, MagicStructuredReply)
	be.PutUint16(b[4:], uint16(f))
	be.PutUint16(b[6:], uint16(t))
	be.PutUint64(b[8:], cookie)
	be.PutUint32(b[16:], length)
	return ChunkHeaderSize
}

// GetChunkHeader decodes the head of a structured reply chunk. The magic is
// not checked.
func GetChunkHeader(b []byte) ChunkHeader {
	_ = b[ChunkHeaderSize-1]
	return ChunkHeader{
		Magic: be.Uint32(b), Flags: ReplyFlags(be.Uint16(b[4:])), Type: ChunkType(be.Uint16(b[6:])),
		Cookie: be.Uint64(b[8:]), Length: be.Uint32(b[16:]),
	}
}

// PutDataChunk encodes the head of the one chunk that carries n bytes read at
// off, and returns its size: the data follow.
func PutDataChunk(b []byte, cookie, off uint64, n uint32) int {
	PutChunkHeader(b, FlagDone, ChunkOffsetData, cookie, ChunkOffsetSize+n)
	be.PutUint64(b[ChunkHeaderSize:], off)
	return ChunkHeaderSize + ChunkOffsetSize
}

// PutErrorChunk encodes a whole error chunk, the last of its request, with a
// message for people, and returns its size.
func PutErrorChunk(b []byte, cookie uint64, e Errno, msg string) int {
	n := PutChunkHeader(b, FlagDone, ChunkError, cookie, uint32(ChunkErrorSize+len(msg)))
	be.PutUint32(b[n:], uint32(e))
	be.PutUint16(b[n+4:], uint16(len(msg)))
	return n + ChunkErrorSize + copy(b[n+ChunkErrorSize:], msg)
}

// PutDescriptor encodes one extent of BLOCK_STATUS.
func PutDescriptor(b []byte, length, state uint32) {
	_ = b[DescriptorSize-1]
	be.PutUint32(b, length)
	be.PutUint32(b[4:], state)
}
