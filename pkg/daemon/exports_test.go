package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/disk"
	"sealdisk/pkg/nbdserver"
)

const (
	idA = "aaaaaaaa-0000-4000-8000-000000000000"
	idB = "bbbbbbbb-0000-4000-8000-000000000000"
	idC = "cccccccc-0000-4000-8000-000000000000"
)

func header() *luks2.Header {
	return &luks2.Header{UUID: idA, SectorSize: 4096, DataOffset: luks2.DataOffset, Token: luks2.Token{Project: "default", DiskID: idA}}
}

// attacher attaches the disk "logs"; only root can give its socket to another user.
var attacher = func() uint32 {
	if os.Geteuid() == 0 {
		return 1000
	}
	return uint32(os.Geteuid())
}()

// publishing serves three disks: "data" in projects one and two, and "logs" in
// one, which is attached by attacher.
func publishing(t *testing.T) *publisher {
	t.Helper()
	cfg := dirs(t)
	if err := cfg.makeDirs(); err != nil {
		t.Fatal(err)
	}
	s := nbdserver.New(nbdserver.Config{}, zap.NewNop())
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	p := newPublisher(s, cfg.RunDir, zap.NewNop())
	for _, a := range []*disk.Attachment{
		{ID: idA, Project: "one", Name: "data"},
		{ID: idB, Project: "two", Name: "data"},
		{ID: idC, Project: "one", Name: "logs", UID: attacher, ReadOnly: true},
	} {
		a.Device, a.Locks = blockdevtest.NewRAM(1<<20, nil), new(blockdev.RangeLock)
		if _, err := p.Publish(a); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestExportNames(t *testing.T) {
	p := publishing(t)
	all := &sharedExports{p: p, allowed: anyLocal}
	for name, want := range map[string]string{
		idA: idA, idC: idC, "logs": idC, "one/logs": idC, "one/data": idA, "two/data": idB,
		"data": "", "": "", "three/data": "", "two/logs": "", "/data": "", "one/": "", "one": "", "one/data/": "",
		strings.ToUpper(idA): "", "../" + idA: "",
	} {
		ex, err := all.Open(nbdserver.Peer{}, name)
		switch {
		case want == "" && !errors.Is(err, nbdserver.ErrUnknownExport):
			t.Errorf("%q opens %v, %v", name, ex, err)
		case want != "" && (err != nil || ex.Name != want):
			t.Errorf("%q: %v, %v, want %s", name, ex, err, want)
		}
	}
	if got := all.List(nbdserver.Peer{}); !slices.Equal(got, []string{"logs", "one/data", "two/data"}) {
		t.Errorf("list %q", got)
	}
}

func TestWhoMayOpen(t *testing.T) {
	p := publishing(t)
	me := uint32(os.Geteuid())
	root, user, other := nbdserver.Peer{Local: true}, nbdserver.Peer{Local: true, UID: attacher}, nbdserver.Peer{Local: true, UID: 4321}
	unknown := nbdserver.Peer{} // no credentials
	for _, tc := range []struct {
		what string
		ex   nbdserver.Exports
		peer nbdserver.Peer
		name string
		want bool
	}{
		{"shared, root", &sharedExports{p, owner}, root, idC, true},
		{"shared, the daemon's user", &sharedExports{p, owner}, nbdserver.Peer{Local: true, UID: me}, idC, true},
		{"shared, who attached it", &sharedExports{p, owner}, user, idC, attacher == me},
		{"shared, another user", &sharedExports{p, owner}, other, idC, false},
		{"shared, no credentials", &sharedExports{p, owner}, unknown, idC, false},
		{"its own, root", &diskExports{p.disks[idC]}, root, "", true},
		{"its own, who attached it", &diskExports{p.disks[idC]}, user, "logs", true},
		{"its own, PROJECT/NAME", &diskExports{p.disks[idC]}, user, "one/logs", true},
		{"its own, UUID", &diskExports{p.disks[idC]}, user, idC, true},
		{"its own, another disk", &diskExports{p.disks[idC]}, user, idA, false},
		{"its own, another user", &diskExports{p.disks[idC]}, other, "", false},
		{"its own, no credentials", &diskExports{p.disks[idC]}, unknown, "", false},
	} {
		ex, err := tc.ex.Open(tc.peer, tc.name)
		if tc.want != (err == nil && ex.Name == idC) || !tc.want && !errors.Is(err, nbdserver.ErrUnknownExport) {
			t.Errorf("%s: %v, %v", tc.what, ex, err)
		}
		if list := tc.ex.List(tc.peer); tc.want != (len(list) > 0) && tc.name != idA {
			t.Errorf("%s: list %q", tc.what, list)
		}
	}
}

func TestPerDiskSocket(t *testing.T) {
	p := publishing(t)
	path := perDiskSocket(p.runDir, idC)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 || ownerOf(st) != attacher {
		t.Errorf("mode %v, owner %d", st.Mode(), ownerOf(st))
	}
	if _, err := p.Publish(p.disks[idC].at); err == nil {
		t.Error("published twice")
	}
	dev, err := open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	// Withdrawing ends a connection that is idle, and the socket.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Withdraw(ctx, idC); err != nil {
		t.Error(err)
	}
	if err := dev.ReadAt(make([]byte, 512), 0); err == nil {
		t.Error("a withdrawn disk answers")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := (&sharedExports{p, anyLocal}).Open(nbdserver.Peer{}, idC); !errors.Is(err, nbdserver.ErrUnknownExport) {
		t.Errorf("it can still be opened: %v", err)
	}
	if err := p.Withdraw(ctx, idC); err != nil {
		t.Errorf("a second time: %v", err)
	}
	// And it can come back.
	if _, err := p.Publish(&disk.Attachment{ID: idC, Project: "one", Name: "logs", UID: attacher, Device: blockdevtest.NewRAM(1<<20, nil), Locks: new(blockdev.RangeLock)}); err != nil {
		t.Error(err)
	}
}

// slow is a device whose reads wait.
type slow struct {
	blockdev.Device
	entered, leave chan struct{}
}

func (s *slow) ReadAt(p []byte, off int64) error {
	close(s.entered)
	<-s.leave
	return s.Device.ReadAt(p, off)
}

// Withdraw returns only when nobody uses the device any more, even if its
// time is up: the key pages go next.
func TestWithdrawWaitsForRequests(t *testing.T) {
	p := publishing(t)
	dev := &slow{blockdevtest.NewRAM(1<<20, nil), make(chan struct{}), make(chan struct{})}
	const id = "dddddddd-0000-4000-8000-000000000000"
	if _, err := p.Publish(&disk.Attachment{ID: id, Project: "one", Name: "slow", UID: attacher, Device: dev, Locks: new(blockdev.RangeLock)}); err != nil {
		t.Fatal(err)
	}
	c, err := open(perDiskSocket(p.runDir, id), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Counted from the moment that the client's handshake is over.
	if n, other, none := p.connectionsOf(id), p.connectionsOf(idA), p.connectionsOf("x"); n != 1 || other != 0 || none != 0 {
		t.Errorf("%d connections, %d of another disk, %d of none", n, other, none)
	}
	go c.ReadAt(make([]byte, 512), 0)
	<-dev.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- p.Withdraw(ctx, id) }()
	select {
	case err := <-done:
		t.Errorf("it returned (%v) while a read was under way", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(dev.leave)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v: it should tell that requests were cut", err)
	}
}

// Sockets and half-made ones that a killed engine left are removed, other
// files are not.
func TestRemoveStale(t *testing.T) {
	cfg := dirs(t)
	if err := cfg.makeDirs(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cfg.RunDir, nbdDirName)
	l, err := nbdserver.ListenUnix(perDiskSocket(cfg.RunDir, idA), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Mkdir(filepath.Join(dir, ".s123"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "note.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeStale(cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "note.txt" {
		t.Errorf("left: %v, %v", left, err)
	}
}
