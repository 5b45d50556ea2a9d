package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"sealdisk/blockdev"
	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// mapping says, in this one place, what users see of the errors of the
// packages below. The first entry that errors.Is finds is taken. The codes are those of the EVS
// API reference, "Error Codes".
var mapping = []struct {
	err   error
	class api.Class
	code  string
	hint  string // PROJECT and KEY in it are replaced
	plain bool   // err itself says all; the rest of its chain is for the log
}{
	{kms.ErrNoAgency, api.ClassDenied, api.CodeNoAgency, "a Security Administrator can grant it: sealdisk agency grant --project PROJECT", true},
	{kms.ErrDisabled, api.ClassKeyUnusable, api.CodeKeyState, "enable the key: sealdisk key enable KEY", true},
	{kms.ErrPendingDeletion, api.ClassKeyUnusable, api.CodeKeyState, "cancel the deletion, then enable the key: sealdisk key cancel-deletion KEY; sealdisk key enable KEY", true},
	{kms.ErrFrozen, api.ClassKeyUnusable, api.CodeKeyState, "renew the key or top up the account, then try again", true},
	{kms.ErrNotFound, api.ClassKeyUnusable, api.CodeKeyMissing, "sealdisk key list shows the keys; what a deleted key encrypted can't be restored", true},
	{kms.ErrDenied, api.ClassDenied, api.CodeUnauthorized, "the key's owner must share it with this project", true},
	{kms.ErrBinding, api.ClassCorrupt, api.CodeVolumeError, "the wrapped key was made for another disk, project or key: restore the header from a backup", false},
	{kms.ErrThrottled, api.ClassKMSUnreachable, api.CodeKMSCheck, "try again later", false},
	{kms.ErrUnavailable, api.ClassKMSUnreachable, api.CodeKMSCheck, "see whether the KMS runs: sealdisk status", false},
	{kms.ErrProtocol, api.ClassInternal, api.CodeInternal, "", false},

	{luks2.ErrForged, api.ClassCorrupt, api.CodeVolumeError, "restore the header from a backup: somebody changed it without the key", false},
	{luks2.ErrWrongKey, api.ClassCorrupt, api.CodeVolumeError, "restore the header from a backup: it does not belong to this data key", false},
	{luks2.ErrUnsupported, api.ClassCorrupt, api.CodeVolumeError, "sealdisk opens only the containers that it writes", false},
	{luks2.ErrDamaged, api.ClassCorrupt, api.CodeVolumeError, "restore the first 16 MiB of the image from a backup", false},
	{luks2.ErrConflict, api.ClassConflict, api.CodeVolumeError, "something else changed the header meanwhile, such as cryptsetup: try again", false},
	{luks2.ErrNotLUKS2, api.ClassCorrupt, api.CodeVolumeError, "restore the first 16 MiB of the image from a backup", false},

	{blockdev.ErrSyncFailed, api.ClassInternal, api.CodeVolumeError, "data written since the last flush may be lost; the next attach needs --accept-data-loss", false},
	{blockdev.ErrGeometry, api.ClassCorrupt, api.CodeVolumeError, "restore the image from a backup", false},
	{blockdev.ErrNoSpace, api.ClassNoSpace, api.CodeQuota, "make space where the state directory is", false},
	{syscall.ENOSPC, api.ClassNoSpace, api.CodeQuota, "make space where the state directory is", false},
	{syscall.EDQUOT, api.ClassNoSpace, api.CodeQuota, "make space where the state directory is", false},

	{secmem.ErrMemlock, api.ClassNoSpace, api.CodeAttach, "raise the limit of locked memory (ulimit -l, LimitMEMLOCK)", false},
	{secmem.ErrSecretUnavailable, api.ClassConflict, api.CodeAttach, "leave out --require-secretmem, or boot with secretmem.enable=1", false},

	{ErrRecord, api.ClassCorrupt, api.CodeVolumeError, "restore the catalog entry from a backup, or remove it and import the disk", false},
	{fs.ErrNotExist, api.ClassNotFound, api.CodeNotFound, "", false},
	{fs.ErrPermission, api.ClassDenied, api.CodeUnauthorized, "the daemon's user must be allowed to", false},
	{context.DeadlineExceeded, api.ClassInternal, api.CodeInternal, "it took too long", false},
	{context.Canceled, api.ClassInternal, api.CodeUnavailable, "the daemon is stopping, or the request was given up", false},
}

// apiError turns err into what users see. An *api.Error stays what it is. doing
// says what failed, e.g. "attach disk data"; r, which may be nil, completes hints.
func apiError(doing string, err error, r *Record) *api.Error {
	message := func(s string) string {
		if doing == "" {
			return s
		}
		return doing + ": " + s
	}
	var e *api.Error
	if errors.As(err, &e) {
		c := *e
		c.Err = err
		return &c
	}
	for _, m := range mapping {
		if !errors.Is(err, m.err) {
			continue
		}
		hint := m.hint
		if r != nil {
			hint = strings.ReplaceAll(hint, "PROJECT", r.Project)
			if r.Encryption != nil && r.Encryption.KeyID != "" {
				hint = strings.ReplaceAll(hint, "KEY", r.Encryption.KeyID)
			}
		}
		what := err
		if m.plain {
			what = m.err
		}
		return &api.Error{Class: m.class, Code: m.code, Message: message(what.Error()), Hint: hint, Err: err}
	}
	return &api.Error{Class: api.ClassInternal, Code: api.CodeInternal, Message: message(err.Error()), Err: err}
}

func usage(code, hint, format string, v ...any) error {
	return &api.Error{Class: api.ClassUsage, Code: code, Message: fmt.Sprintf(format, v...), Hint: hint}
}

func corrupt(hint, format string, v ...any) error {
	return &api.Error{Class: api.ClassCorrupt, Code: api.CodeVolumeError, Message: fmt.Sprintf(format, v...), Hint: hint}
}

func conflict(hint, format string, v ...any) error {
	return &api.Error{Class: api.ClassConflict, Code: api.CodeBadRequest, Message: fmt.Sprintf(format, v...), Hint: hint}
}

func notFound(what, id string) error {
	return &api.Error{Class: api.ClassNotFound, Code: api.CodeNotFound, Message: fmt.Sprintf("%s %s does not exist", what, id)}
}
