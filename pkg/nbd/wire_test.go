package nbd

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// reflected encodes v as go-nbd does.
func reflected(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.BigEndian, v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHeadersAsGoNBD: what is encoded by hand is what go-nbd encodes by
// reflection, and decodes to the same.
func TestHeadersAsGoNBD(t *testing.T) {
	newstyle := NewstyleHeader{OldstyleMagic: MagicInit, OptionMagic: MagicOption, HandshakeFlags: 0x0102}
	option := OptionHeader{OptionMagic: MagicOption, ID: 0x01020304, Length: 0x05060708}
	reply := OptionReplyHeader{ReplyMagic: MagicOptionReply, ID: 7, Type: uint32(RepErrUnknown), Length: 0x01020304}
	request := RequestHeader{RequestMagic: MagicRequest, CommandFlags: 0x0102, Type: 0x0304, Handle: 0x05060708090a0b0c, Offset: 0x1112131415161718, Length: 0x191a1b1c}
	simple := SimpleReplyHeader{ReplyMagic: MagicSimpleReply, Error: uint32(EINVAL), Handle: 0x0102030405060708}

	var b [64]byte
	PutNewstyleHeader(b[:], newstyle)
	check(t, "greeting", b[:NewstyleHeaderSize], reflected(t, newstyle), GetNewstyleHeader(b[:]) == newstyle)
	PutOptionHeader(b[:], option)
	check(t, "option", b[:OptionHeaderSize], reflected(t, option), GetOptionHeader(b[:]) == option)
	got := AppendOptionReply(nil, Option(reply.ID), OptionReply(reply.Type), int(reply.Length))
	check(t, "option reply", got, reflected(t, reply), GetOptionReplyHeader(got) == reply)
	PutRequestHeader(b[:], &request)
	var decoded RequestHeader
	GetRequestHeader(b[:], &decoded)
	check(t, "request", b[:RequestHeaderSize], reflected(t, request), decoded == request)
	n := PutSimpleReply(b[:], simple.Handle, Errno(simple.Error))
	check(t, "simple reply", b[:n], reflected(t, simple), n == SimpleReplySize && GetSimpleReply(b[:]) == simple)
	check(t, "export information", AppendInfoExport(nil, 0x0102030405060708, 0x090a),
		reflected(t, InfoExportReply{Type: protocol.NEGOTIATION_TYPE_INFO_EXPORT, Size: 0x0102030405060708, TransmissionFlags: 0x090a}), true)
	check(t, "block size information", AppendInfoBlockSize(nil, 1, 4096, 32<<20),
		reflected(t, InfoBlockSizeReply{Type: protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE, MinimumBlockSize: 1, PreferredBlockSize: 4096, MaximumBlockSize: 32 << 20}), true)
}

func check(t *testing.T, what string, got, want []byte, same bool) {
	t.Helper()
	if !bytes.Equal(got, want) || !same {
		t.Errorf("%s: % x, want % x; decodes to the same: %v", what, got, want, same)
	}
}

// TestStructuredReplies against bytes written down from the specification.
func TestStructuredReplies(t *testing.T) {
	var b [64]byte
	n := PutChunkHeader(b[:], FlagDone, ChunkNone, 0x0102030405060708, 0)
	check(t, "none", b[:n], unhex(t, "668e33ef 0001 0000 0102030405060708 00000000"), true)
	n = PutDataChunk(b[:], 5, 0x1000, 512)
	check(t, "data", b[:n], unhex(t, "668e33ef 0001 0001 0000000000000005 00000208 0000000000001000"), true)
	n = PutErrorChunk(b[:], 5, ENOSPC, "full")
	check(t, "error", b[:n], unhex(t, "668e33ef 0001 8001 0000000000000005 0000000a 0000001c 0004 66756c6c"), true)
	PutDescriptor(b[:], 0x10000, StateHole|StateZero)
	check(t, "descriptor", b[:DescriptorSize], unhex(t, "00010000 00000003"), true)
	PutChunkHeader(b[:], FlagDone, ChunkBlockStatus, ^uint64(0), 12)
	if h := GetChunkHeader(b[:]); h != (ChunkHeader{MagicStructuredReply, FlagDone, ChunkBlockStatus, ^uint64(0), 12}) {
		t.Errorf("decodes to %+v", h)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestValues pins numbers that go-nbd does not have, from the specification.
func TestValues(t *testing.T) {
	for name, c := range map[string][2]uint64{
		"structured reply magic": {uint64(MagicStructuredReply), 0x668e33ef},
		"export name":            {uint64(OptExportName), 1},
		"starttls":               {uint64(OptStartTLS), 5},
		"structured reply":       {uint64(OptStructuredReply), 8},
		"list meta context":      {uint64(OptListMetaContext), 9},
		"set meta context":       {uint64(OptSetMetaContext), 10},
		"tls required":           {uint64(RepErrTLSReqd), 1<<31 | 5},
		"too big":                {uint64(RepErrTooBig), 1<<31 | 9},
		"flush":                  {uint64(CmdFlush), 3},
		"cache":                  {uint64(CmdCache), 5},
		"block status":           {uint64(CmdBlockStatus), 7},
		"fast zero":              {uint64(FlagFastZero), 16},
		"send cache":             {uint64(FlagSendCache), 1 << 10},
		"send fast zero":         {uint64(FlagSendFastZero), 1 << 11},
		"multi conn":             {uint64(FlagCanMultiConn), 1 << 8},
		"ENOTSUP":                {uint64(ENOTSUP), 95},
		"ESHUTDOWN":              {uint64(ESHUTDOWN), 108},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %d, want %d", name, c[0], c[1])
		}
	}
}

func TestStrings(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{OptSetMetaContext.String(), "SET_META_CONTEXT"},
		{Option(99).String(), "unknown 0x63"},
		{RepErrUnknown.String(), "ERR_UNKNOWN"},
		{InfoBlockSize.String(), "BLOCK_SIZE"},
		{CmdWriteZeroes.String(), "WRITE_ZEROES"},
		{ChunkError.String(), "ERROR"},
		{EIO.String(), "EIO"},
		{ESHUTDOWN.Error(), "NBD error ESHUTDOWN"},
		{(FlagFUA | FlagFastZero).String(), "FUA|FAST_ZERO"},
		{CommandFlags(0).String(), "0"},
		{CommandFlags(1 << 9).String(), "0x200"},
		{(FlagHasFlags | FlagSendFastZero).String(), "HAS_FLAGS|SEND_FAST_ZERO"},
		{(FlagFixedNewstyle | FlagNoZeroes).String(), "FIXED_NEWSTYLE|NO_ZEROES"},
		{ClientNoZeroes.String(), "NO_ZEROES"},
		{FlagDone.String(), "DONE"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	var e error = ENOSPC
	if !errors.Is(e, ENOSPC) || errors.Is(e, EIO) {
		t.Error("errors.Is on an Errno")
	}
	if !RepErrPolicy.IsError() || RepAck.IsError() || !ChunkErrorOffset.IsError() || ChunkOffsetHole.IsError() {
		t.Error("IsError")
	}
}

// FuzzRequestHeader: any 28 bytes are a header, and the same bytes again.
func FuzzRequestHeader(f *testing.F) {
	f.Add(make([]byte, RequestHeaderSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < RequestHeaderSize {
			return
		}
		var h RequestHeader
		GetRequestHeader(b, &h)
		var again [RequestHeaderSize]byte
		PutRequestHeader(again[:], &h)
		if !bytes.Equal(again[:], b[:RequestHeaderSize]) {
			t.Errorf("% x, want % x", again, b)
		}
	})
}

// TestNoAllocation: none of what the hot path uses allocates.
func TestNoAllocation(t *testing.T) {
	var b [64]byte
	var h RequestHeader
	if n := testing.AllocsPerRun(100, func() {
		PutRequestHeader(b[:], &h)
		GetRequestHeader(b[:], &h)
		PutSimpleReply(b[:], 1, EIO)
		PutDataChunk(b[:], 1, 2, 3)
		PutErrorChunk(b[:], 1, EIO, "message")
		PutDescriptor(b[:], 1, 2)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
