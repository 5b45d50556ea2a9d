package luks2

import (
	"encoding/json"
	"fmt"

	"go.uber.org/zap/zapcore"
)

// String describes the token without the wrapped DK.
func (t Token) String() string {
	return fmt.Sprintf("token{provider %s, key %s version %s, wrapped key of %d bytes (redacted), disk %s, project %s, generation %d}",
		t.Provider, t.KeyID, t.KeyVersion, len(t.WrappedDK), t.DiskID, t.Project, t.Generation)
}

// GoString is String.
func (t Token) GoString() string { return t.String() }

// Format writes String for every verb.
func (t Token) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(t.String())) }

// MarshalLogObject gives zap the token without the wrapped DK.
func (t Token) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("provider", t.Provider)
	e.AddString("key", t.KeyID)
	e.AddString("key_version", t.KeyVersion)
	e.AddString("disk", t.DiskID)
	e.AddString("project", t.Project)
	e.AddUint64("generation", t.Generation)
	return nil
}

// String describes the header without the wrapped DK.
func (h Header) String() string {
	size := sizeDynamic
	if h.DataSize != 0 {
		size = fmt.Sprintf("%d bytes", h.DataSize)
	}
	return fmt.Sprintf("luks2{uuid %s, label %q, sequence number %d, %s, sector %d, data at %d, %s, requirements %v, %d keyslots, %s}",
		h.UUID, h.Label, h.SeqID, Cipher, h.SectorSize, h.DataOffset, size, h.Requirements, h.Kept.count(), h.Token)
}

// GoString is String.
func (h Header) GoString() string { return h.String() }

// Format writes String for every verb.
func (h Header) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(h.String())) }

// MarshalLogObject gives zap the header without the wrapped DK.
func (h Header) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("uuid", h.UUID)
	e.AddUint64("seqid", h.SeqID)
	e.AddInt("sector_size", h.SectorSize)
	e.AddInt64("data_size", h.DataSize)
	e.AddInt("keyslots", h.Kept.count())
	return e.AddObject("token", h.Token)
}

func (k Kept) count() int {
	var slots map[string]json.RawMessage
	if json.Unmarshal(k.Keyslots, &slots) != nil {
		return 0
	}
	return len(slots)
}
