package secmem

import (
	"fmt"
	"io"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// redacted is all that a type of this package ever says of itself.
type redacted struct {
	kind string
	size int
	mode Mode
}

func (d redacted) String() string {
	if d.mode == "" {
		return fmt.Sprintf("[%s: %d bytes, redacted]", d.kind, d.size)
	}
	return fmt.Sprintf("[%s: %d bytes, %s, redacted]", d.kind, d.size, d.mode)
}

func (d redacted) json() ([]byte, error) { return fmt.Appendf(nil, "%q", d.String()), nil }

func (d redacted) object(enc zapcore.ObjectEncoder) error {
	enc.AddString("redacted", d.String())
	return nil
}

func (r *Region) redacted() redacted {
	if r == nil {
		return redacted{kind: "key pages"}
	}
	return redacted{"key pages", r.size, r.mode}
}

func (w *Writable) redacted() redacted {
	if w == nil {
		return redacted{kind: "writable key pages"}
	}
	return redacted{"writable key pages", w.size, w.mode}
}

func (b *Buffer) redacted() redacted {
	if b == nil {
		return redacted{kind: "locked buffer"}
	}
	return redacted{kind: "locked buffer", size: b.size}
}

// Every way of printing gives size and mode: fmt (all verbs), encoding/json,
// log/slog and zap.

func (r *Region) String() string                                 { return r.redacted().String() }
func (r *Region) GoString() string                               { return r.redacted().String() }
func (r *Region) Format(s fmt.State, _ rune)                     { io.WriteString(s, r.redacted().String()) }
func (r *Region) MarshalJSON() ([]byte, error)                   { return r.redacted().json() }
func (r *Region) LogValue() slog.Value                           { return slog.StringValue(r.redacted().String()) }
func (r *Region) MarshalLogObject(e zapcore.ObjectEncoder) error { return r.redacted().object(e) }

func (w *Writable) String() string                                 { return w.redacted().String() }
func (w *Writable) GoString() string                               { return w.redacted().String() }
func (w *Writable) Format(s fmt.State, _ rune)                     { io.WriteString(s, w.redacted().String()) }
func (w *Writable) MarshalJSON() ([]byte, error)                   { return w.redacted().json() }
func (w *Writable) LogValue() slog.Value                           { return slog.StringValue(w.redacted().String()) }
func (w *Writable) MarshalLogObject(e zapcore.ObjectEncoder) error { return w.redacted().object(e) }

func (b *Buffer) String() string                                 { return b.redacted().String() }
func (b *Buffer) GoString() string                               { return b.redacted().String() }
func (b *Buffer) Format(s fmt.State, _ rune)                     { io.WriteString(s, b.redacted().String()) }
func (b *Buffer) MarshalJSON() ([]byte, error)                   { return b.redacted().json() }
func (b *Buffer) LogValue() slog.Value                           { return slog.StringValue(b.redacted().String()) }
func (b *Buffer) MarshalLogObject(e zapcore.ObjectEncoder) error { return b.redacted().object(e) }
