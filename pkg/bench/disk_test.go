package bench

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd/nbdclient"
	"sealdisk/pkg/nbdserver"
)

const (
	block = 4096 // of the watched disk's allocation
	mib   = 1 << 20
)

// watched is a disk in memory that knows which blocks are holes, and sees every
// write that would change what is there.
type watched struct {
	*blockdevtest.RAM
	mu       sync.Mutex // for all below, and the contents
	holes    []bool     // by block
	writes   int
	zeroed   int64
	changes  int    // writes that changed contents
	furthest int64  // end of what was accessed
	onRead   func() // called for each read, without mu
}

// newWatched makes a disk whose odd 64-KiB pieces hold random data, the others holes.
func newWatched(size int64, faults *blockdevtest.Faults) *watched {
	d := &watched{RAM: blockdevtest.NewRAM(size, faults), holes: make([]bool, size/block)}
	rng := rand.NewChaCha8([32]byte{1})
	for i := range d.holes {
		if d.holes[i] = i/16%2 == 0; !d.holes[i] {
			rng.Read(d.Bytes()[i*block:][:block])
		}
	}
	return d
}

// countHolesLocked is the holes' bytes.
func (d *watched) countHolesLocked() (n int64) {
	for _, h := range d.holes {
		if h {
			n += block
		}
	}
	return n
}

func (d *watched) read(off, length int64) {
	d.mu.Lock()
	d.furthest = max(d.furthest, off+length)
	f := d.onRead
	d.mu.Unlock()
	if f != nil {
		f()
	}
}

func (d *watched) ReadAt(p []byte, off int64) error {
	d.read(off, int64(len(p)))
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.RAM.ReadAt(p, off)
}

func (d *watched) ReadNow(p []byte, off int64) error {
	d.read(off, int64(len(p)))
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.RAM.ReadNow(p, off)
}

func (d *watched) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	d.furthest = max(d.furthest, off+int64(len(p)))
	if !bytes.Equal(p, d.Bytes()[off:][:len(p)]) {
		d.changes++
	}
	for i := off / block; i < (off+int64(len(p))+block-1)/block; i++ {
		d.holes[i] = false
	}
	return d.RAM.WriteAt(p, off, f)
}

func (d *watched) WriteZeroes(off, length int64, f blockdev.Flags) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.zeroed += length
	d.furthest = max(d.furthest, off+length)
	if len(bytes.Trim(d.Bytes()[off:][:length], "\x00")) > 0 {
		d.changes++
	}
	for i := (off + block - 1) / block; i < (off+length)/block; i++ {
		d.holes[i] = true
	}
	return d.RAM.WriteZeroes(off, length, f)
}

func (d *watched) Extents(dst []blockdev.Extent, off, length int64, most int) ([]blockdev.Extent, error) {
	if err := blockdev.CheckRange(off, length, d.Size()); err != nil {
		return dst, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for end := off + length; off < end && len(dst) < most; {
		h := d.holes[off/block]
		n := off/block*block + block
		for n < end && d.holes[n/block] == h {
			n += block
		}
		n = min(n, end)
		dst = append(dst, blockdev.Extent{Off: off, Len: n - off, Hole: h, Zero: h})
		off = n
	}
	return dst, nil
}

// exports is one disk.
type exports struct{ e *nbdserver.Export }

func (x exports) Open(nbdserver.Peer, string) (*nbdserver.Export, error) { return x.e, nil }
func (x exports) List(nbdserver.Peer) []string                           { return nil }

// serve serves a disk and returns a measurement of it that reads for a
// moment only.
func serve(t *testing.T, dev blockdev.Device) (Config, *nbdserver.Export) {
	t.Helper()
	return serveExport(t, &nbdserver.Export{Name: "disk", Device: dev, Locks: new(blockdev.RangeLock), Gate: new(nbdserver.Gate)})
}

func serveExport(t *testing.T, e *nbdserver.Export) (Config, *nbdserver.Export) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "nbd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := nbdserver.New(nbdserver.Config{}, zap.NewNop())
	go s.Serve(l, exports{e})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return Config{
		Connections: 1, Time: time.Millisecond,
		Dial: func(ctx context.Context, o nbdclient.Options) (*nbdclient.Conn, error) {
			return nbdclient.Dial(ctx, path, "disk", o)
		},
		Alone: func(ctx context.Context, own int) error {
			if n := e.Gate.Connections(); n != own {
				t.Errorf("%d connections, the measurement says %d", n, own)
			}
			return ctx.Err()
		},
	}, e
}

// run runs a measurement that has to end without an error.
func mustRun(t *testing.T, ctx context.Context, cfg Config) *Report {
	t.Helper()
	rep, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}
