package gonbd

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/server"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

func TestBackend(t *testing.T) {
	const size = 64 << 10
	faults := &blockdevtest.Faults{}
	dev := blockdevtest.NewRAM(size, faults)
	b := New(blockdev.Serialize(dev))
	if n, err := b.Size(); n != size || err != nil {
		t.Errorf("Size: %d, %v", n, err)
	}
	p := bytes.Repeat([]byte("abc"), 1000)
	kept := bytes.Clone(p)
	if n, err := b.WriteAt(p, 100); n != len(p) || err != nil {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
	if !bytes.Equal(p, kept) {
		t.Error("WriteAt changed its caller's buffer")
	}
	got := make([]byte, len(p))
	if n, err := b.ReadAt(got, 100); n != len(p) || err != nil || !bytes.Equal(got, kept) {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
	for _, c := range []struct {
		off  int64
		n    int
		want error
	}{{size - 10, 10, io.EOF}, {size, 0, io.EOF}, {size + 1, 0, io.EOF}, {-1, 0, blockdev.ErrOutOfRange}} {
		if n, err := b.ReadAt(got, c.off); n != c.n || !errors.Is(err, c.want) {
			t.Errorf("ReadAt(%d): %d, %v, want %d, %v", c.off, n, err, c.n, c.want)
		}
		if n, err := b.WriteAt(got, c.off); n != 0 || !errors.Is(err, blockdev.ErrOutOfRange) {
			t.Errorf("WriteAt(%d): %d, %v", c.off, n, err)
		}
	}
	if err := b.Sync(); err != nil || faults.Count(blockdevtest.OpSync) != 1 {
		t.Errorf("Sync: %v, %d syncs", err, faults.Count(blockdevtest.OpSync))
	}
	faults.Add(blockdevtest.Rule{Err: blockdev.ErrIO})
	for name, err := range map[string]error{
		"ReadAt": second(b.ReadAt(got, 0)), "WriteAt": second(b.WriteAt(got, 0)), "Sync": b.Sync(),
	} {
		if !errors.Is(err, blockdev.ErrIO) {
			t.Errorf("%s of a broken device: %v", name, err)
		}
	}
}

func second(_ int, err error) error { return err }

// TestGoNBDServer: go-nbd's server serves a device through the adapter, as
// the benchmarks' baseline does.
func TestGoNBDServer(t *testing.T) {
	dev := blockdevtest.NewRAM(64<<10, nil)
	copy(dev.Bytes()[4096:], "hello")
	c, s, err := nbdtest.Pair()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		err := server.Handle(s, []*server.Export{{Name: "disk", Backend: New(blockdev.Serialize(dev))}}, nil)
		s.Close()
		done <- err
	}()
	raw := &nbdtest.Raw{UnixConn: c}
	if _, err := raw.Bytes(nbd.NewstyleHeaderSize); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Write([]byte{0, 0, 0, byte(nbd.ClientFixedNewstyle)}); err != nil {
		t.Fatal(err)
	}
	if all, err := raw.Ask(nbd.OptGo, nbdtest.InfoData("disk")); err != nil || all[len(all)-1].Type != nbd.RepAck {
		t.Fatalf("GO: %v, %v", all, err)
	}
	cl := nbdtest.NewClient(c, 64<<10, 0, nbdtest.Features{})
	if _, err := cl.Do(nbd.CmdWrite, 0, 4101, 0, []byte(" world")); err != nil {
		t.Errorf("WRITE: %v", err)
	}
	call, err := cl.Do(nbd.CmdRead, 0, 4096, 11, nil)
	if err != nil || string(call.Data) != "hello world" {
		t.Errorf("READ: %q, %v", call.Data, err)
	}
	if err := cl.Disconnect(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("server: %v", err)
	}
}
