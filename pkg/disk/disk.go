// Package disk keeps the disks of one daemon: the catalog that says what they
// are, the state machine that says what may happen to them, and the
// operations: create, attach, detach, delete, finalize, import, recover.
//
// A Manager owns one state directory:
//
//	<state>/lock                    held while a daemon uses the directory
//	<state>/catalog/<uuid>.json     what is authoritative for a disk (record.go)
//	<state>/disks/<uuid>/disk.img   its data: a LUKS2 container, or raw if unencrypted
//
// The catalog stands outside the disks' directories on purpose: whoever can
// exchange an image can't exchange what is believed about it (encrypted or
// not, key, lowest generation of the header).
//
// The package never sees a data key (DK): a KeyFetcher fills key pages that it only
// maps. Delete and detach never ask for a key.
package disk

import (
	"context"

	"sealdisk/blockdev"
	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/secmem"
)

// KeyFetcher gets data keys for a disk without showing them to this process.
// It is implemented by keyfetch.Client.
//
// Calls may be concurrent, honour ctx and have a deadline of their own. The
// headers given are not changed and not kept. Errors wrap those of the
// packages kms and luks2.
type KeyFetcher interface {
	// Create makes a DK under key (an id or alias, "" is the project's default
	// key) for the disk that h describes (UUID, sector size, requirements,
	// Token.Project, Token.DiskID) and returns h sealed: resolved key, wrapped
	// DK, digest and MAC. The DK was unwrapped on trial.
	Create(ctx context.Context, h *luks2.Header, key string) (*luks2.Header, error)
	// Attach unwraps the DK of h, checks the header's digest and MAC, and fills
	// r with the expanded key, which is mapped when Attach returns nil. On an
	// error r is to be destroyed.
	Attach(ctx context.Context, h *luks2.Header, r *secmem.Region) error
	// Reseal checks old as Attach does and returns next sealed with the same DK.
	Reseal(ctx context.Context, old, next *luks2.Header) (*luks2.Header, error)
}

// Publisher makes attached disks reachable for NBD clients. Calls for different disks may
// be concurrent, those for one disk are not.
type Publisher interface {
	// Publish starts to serve a and returns the URI for clients. On an error nothing is served.
	Publish(a *Attachment) (uri string, err error)
	// Withdraw ends the service of disk id: it refuses new requests and lets
	// those under way finish, until ctx ends, and then closes their
	// connections. Once it returned, with or without an error, no call reaches the device.
	Withdraw(ctx context.Context, id string) error
}

// Attachment is a disk that is attached. The Manager owns the device and
// closes it after Withdraw.
type Attachment struct {
	ID      string // UUID of the disk
	Project string
	Name    string
	Device  blockdev.Device
	// Locks is the one range lock that all users of Device share.
	Locks     *blockdev.RangeLock
	ReadOnly  bool
	BlockSize uint32 // logical block size in bytes: 512 or 4096
	UID, GID  uint32 // who attached it, and owns its socket
}
