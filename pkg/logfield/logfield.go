// Package logfield is the fixed vocabulary of structured log fields: every
// zap field in sealdisk is made here, so that one name means one thing. No
// function takes a key, a wrapped key or a passphrase.
package logfield

import (
	"time"

	"go.uber.org/zap"
)

func Disk(id string) zap.Field          { return zap.String("disk", id) }
func Project(id string) zap.Field       { return zap.String("project", id) }
func Key(id string) zap.Field           { return zap.String("key", id) }
func Export(name string) zap.Field      { return zap.String("export", name) }
func Conn(n uint64) zap.Field           { return zap.Uint64("conn", n) }
func Peer(s string) zap.Field           { return zap.String("peer", s) }
func UID(uid uint32) zap.Field          { return zap.Uint32("uid", uid) }
func PID(pid int) zap.Field             { return zap.Int("pid", pid) }
func Path(p string) zap.Field           { return zap.String("path", p) }
func Op(name string) zap.Field          { return zap.String("op", name) }
func State(s string) zap.Field          { return zap.String("state", s) }
func Job(id string) zap.Field           { return zap.String("job", id) }
func Mode(m string) zap.Field           { return zap.String("mode", m) }
func Bytes(n int64) zap.Field           { return zap.Int64("bytes", n) }
func Count(n int) zap.Field             { return zap.Int("count", n) }
func Elapsed(d time.Duration) zap.Field { return zap.Duration("elapsed", d) }
func Reason(s string) zap.Field         { return zap.String("reason", s) }
func Err(err error) zap.Field           { return zap.Error(err) }
