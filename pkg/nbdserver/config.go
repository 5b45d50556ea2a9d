package nbdserver

import "time"

// Path says where requests run. Tests force either.
type Path uint8

const (
	// PathAuto lets the connection's leader run what should not block and gives
	// the rest to workers.
	PathAuto Path = iota
	// PathInline lets the leader run everything that need not wait for a lock.
	PathInline
	// PathShare is PathInline with the lead open to others during each request.
	PathShare
	// PathWorker gives every request to a worker.
	PathWorker
)

// Config bounds a server. Zero fields take the defaults said.
type Config struct {
	HandshakeTimeout   time.Duration // from accept to the export chosen: 10 s
	StallTimeout       time.Duration // a client that takes no replies, or stops within a request: 30 s
	MaxConnections     int           // 1024
	MaxHandshakes      int           // connections without an export, per listener: 64
	MaxDiskConnections int           // 256
	MaxRequests        int           // under way per connection: 1024
	Workers            int           // goroutines per disk for what may block: 64

	// Bytes of payload under way. Total and Conn are raised to hold the
	// largest request.
	MemoryTotal int64 // of all disks: 1 GiB
	MemoryDisk  int64 // kept for each disk with connections, never lent to others: 4 MiB
	MemoryConn  int64 // at most per connection: 64 MiB

	Path Path
}

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 10 * time.Second
	}
	if c.StallTimeout <= 0 {
		c.StallTimeout = 30 * time.Second
	}
	def(&c.MaxConnections, 1024)
	def(&c.MaxHandshakes, 64)
	def(&c.MaxDiskConnections, 256)
	def(&c.MaxRequests, 1024)
	def(&c.Workers, 64)
	if c.MemoryTotal <= 0 {
		c.MemoryTotal = 1 << 30
	}
	if c.MemoryDisk <= 0 {
		c.MemoryDisk = 4 << 20
	}
	if c.MemoryConn <= 0 {
		c.MemoryConn = 64 << 20
	}
	return c
}
