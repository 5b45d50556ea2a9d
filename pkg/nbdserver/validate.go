package nbdserver

import (
	"errors"
	"syscall"

	"sealdisk/blockdev"
	"sealdisk/pkg/nbd"
)

// flagsOf says which flags a command may have. FUA is valid on each.
var flagsOf = [...]nbd.CommandFlags{
	nbd.CmdRead:        nbd.FlagFUA | nbd.FlagDF,
	nbd.CmdWrite:       nbd.FlagFUA,
	nbd.CmdDisc:        nbd.FlagFUA,
	nbd.CmdFlush:       nbd.FlagFUA,
	nbd.CmdTrim:        nbd.FlagFUA,
	nbd.CmdCache:       nbd.FlagFUA,
	nbd.CmdWriteZeroes: nbd.FlagFUA | nbd.FlagNoHole | nbd.FlagFastZero,
	nbd.CmdBlockStatus: nbd.FlagFUA | nbd.FlagReqOne,
}

// validate is the one judge of a request: zero, or the error that answers it and why.
func validate(h *nbd.RequestHeader, neg *negotiated) (nbd.Errno, string) {
	cmd, flags := nbd.Command(h.Type), nbd.CommandFlags(h.CommandFlags)
	if int(cmd) >= len(flagsOf) {
		return nbd.EINVAL, "unknown command"
	}
	if flags&^flagsOf[cmd] != 0 || flags&nbd.FlagDF != 0 && !neg.structured {
		return nbd.EINVAL, "flag not valid for this command"
	}
	changes := cmd == nbd.CmdWrite || cmd == nbd.CmdTrim || cmd == nbd.CmdWriteZeroes
	switch {
	case cmd == nbd.CmdFlush:
		if h.Offset != 0 || h.Length != 0 {
			return nbd.EINVAL, "FLUSH has no range"
		}
		return 0, ""
	case changes && neg.export.ReadOnly:
		return nbd.EPERM, "export is read-only"
	case cmd == nbd.CmdBlockStatus && !neg.meta:
		return nbd.EINVAL, "no metadata context was selected"
	case h.Length == 0:
		return nbd.EINVAL, "length is zero"
	case (cmd == nbd.CmdRead || cmd == nbd.CmdWrite) && h.Length > nbd.MaxPayload:
		return nbd.EINVAL, "longer than 32 MiB"
	}
	// An offset from 2^63 on becomes negative, which no range is.
	if blockdev.CheckRange(int64(h.Offset), int64(h.Length), neg.export.Device.Size()) != nil {
		return outside(cmd), "range ends past the disk's end"
	}
	return 0, ""
}

// outside is the error of a range outside the disk: ENOSPC where data would
// have to be stored.
func outside(cmd nbd.Command) nbd.Errno {
	if cmd == nbd.CmdWrite || cmd == nbd.CmdWriteZeroes {
		return nbd.ENOSPC
	}
	return nbd.EINVAL
}

// errnoOf is the one map of a device's errors to the wire.
func errnoOf(cmd nbd.Command, err error) nbd.Errno {
	switch {
	case errors.Is(err, blockdev.ErrOutOfRange):
		return outside(cmd)
	case errors.Is(err, blockdev.ErrReadOnly):
		return nbd.EPERM
	case errors.Is(err, blockdev.ErrNoSpace), errors.Is(err, syscall.ENOSPC),
		errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return nbd.ENOSPC
	case errors.Is(err, blockdev.ErrNotSupported):
		return nbd.ENOTSUP
	case errors.Is(err, blockdev.ErrClosed):
		return nbd.ESHUTDOWN
	}
	return nbd.EIO // ErrIO, ErrSyncFailed and whatever else went wrong
}
