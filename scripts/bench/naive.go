package main

import (
	"crypto/aes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"github.com/pojntfx/go-nbd/pkg/server"
	"golang.org/x/crypto/xts"
)

// naiveCommand, as first argument, makes this program the baseline's server:
// what an afternoon with go-nbd and golang.org/x/crypto/xts gives.
const naiveCommand = "naive-server"

const naiveSector = 4096

// naiveMain serves FILE, encrypted with a key of its own, on SOCKET until it is
// killed.
func naiveMain(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%w: bench %s SOCKET FILE", errUsage, naiveCommand)
	}
	f, err := os.OpenFile(args[1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	key := make([]byte, 64)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	disk := &naiveDisk{backend.NewFileBackend(f), c}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			// A connection that fails shows in the client.
			_ = server.Handle(conn, []*server.Export{{Backend: disk}}, nil)
		}()
	}
}

// naiveDisk encrypts sectors one after the other. Methods may be called
// concurrently; buffers stay the caller's, WriteAt overwrites its own.
type naiveDisk struct {
	*backend.FileBackend
	c *xts.Cipher
}

// errUnaligned is returned when an operation is not of whole sectors: the
// benchmark has none.
var errUnaligned = errors.New("not whole sectors")

func (d *naiveDisk) ReadAt(p []byte, off int64) (int, error) {
	if off%naiveSector != 0 || len(p)%naiveSector != 0 {
		return 0, errUnaligned
	}
	n, err := d.FileBackend.ReadAt(p, off)
	for i := 0; i+naiveSector <= n; i += naiveSector {
		d.c.Decrypt(p[i:i+naiveSector], p[i:i+naiveSector], uint64(off+int64(i))/naiveSector)
	}
	return n, err
}

func (d *naiveDisk) WriteAt(p []byte, off int64) (int, error) {
	if off%naiveSector != 0 || len(p)%naiveSector != 0 {
		return 0, errUnaligned
	}
	for i := 0; i < len(p); i += naiveSector {
		d.c.Encrypt(p[i:i+naiveSector], p[i:i+naiveSector], uint64(off+int64(i))/naiveSector)
	}
	return d.FileBackend.WriteAt(p, off)
}
