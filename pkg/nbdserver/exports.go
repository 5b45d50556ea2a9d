package nbdserver

import (
	"errors"

	"sealdisk/blockdev"
)

// ErrUnknownExport is returned when no export of that name exists for this
// peer; forbidden ones look the same.
var ErrUnknownExport = errors.New("no such export")

// Peer is who is at the other end of a connection.
type Peer struct {
	UID, GID uint32 // of a unix socket's peer (SO_PEERCRED)
	PID      int32
	Local    bool   // the credentials above are valid
	Addr     string // of a TCP peer
}

// Exports tells a server what it may serve. It is implemented above this
// package. Calls may be concurrent.
type Exports interface {
	// Open returns the export that name means for this peer ("" is the
	// default export, if the listener has one). All of its fields but Description are set. That a
	// connection uses it, its Gate counts. What can't be opened for whatever reason
	// is ErrUnknownExport; another error means the same to the client and is logged.
	Open(peer Peer, name string) (*Export, error)
	// List returns the names that this peer may open.
	List(peer Peer) []string
}

// Export is one attached disk. All connections to the disk share one Export,
// and with it one range lock.
type Export struct {
	Name        string // canonical, given to NBD_INFO_NAME
	Description string
	Device      blockdev.Device
	Locks       *blockdev.RangeLock
	ReadOnly    bool
	// LogicalBlockSize is told as the preferred minimum of I/O in logs only; the
	// NBD minimum is always 1, preferred 4096.
	LogicalBlockSize uint32
	// Gate counts connections and refuses new ones, and new requests
	// (ESHUTDOWN), once the disk is being detached. Exports with the same Gate
	// have the same Device and Locks.
	Gate *Gate
}
