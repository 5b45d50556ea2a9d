package nbdserver

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.sock")
	stale, err := ListenUnix(path, -1) // as a crash leaves it
	if err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	if uid == 0 {
		uid = 65534
	}
	l, err := ListenUnix(path, uid)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != os.ModeSocket|0o600 || fi.Sys().(*syscall.Stat_t).Uid != uint32(uid) {
		t.Errorf("mode %v, owner %d, want 0600 and %d", fi.Mode(), fi.Sys().(*syscall.Stat_t).Uid, uid)
	}
	stale.Close() // its place was taken
	go func() {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
			l.Close()
			return
		}
		c.Close()
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := peerOf(c); err != nil || !p.Local || p.UID != uint32(os.Getuid()) {
		t.Errorf("peer %+v, %v", p, err)
	}
	c.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("%v stays", left)
	}
}

func TestListenUnixRefuses(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 107))
	if _, err := ListenUnix(long, -1); !errors.Is(err, ErrSocketPath) {
		t.Errorf("long path: %v", err)
	}
	if _, err := ListenUnix(filepath.Join(t.TempDir(), "no", "dir"), -1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestLoopbackOnly(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:10809"} {
		if l, err := ListenLoopback(addr); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v, %v", addr, l, err)
		}
	}
	if _, err := ListenLoopback("127.0.0.1"); err == nil {
		t.Error("an address without port")
	}
	everywhere, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	if err := CheckLoopback(everywhere); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("CheckLoopback: %v", err)
	}
}

// TestTCP serves a client on loopback.
func TestTCP(t *testing.T) {
	l, err := ListenLoopback("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckLoopback(l); err != nil {
		t.Error(err)
	}
	dev, _ := ram(mib)
	r := newRig(t, Config{}, dev)
	go r.srv.Serve(l, r.table)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := append(be.AppendUint32(nil, uint32(nbd.ClientFixedNewstyle|nbd.ClientNoZeroes)), nbdtest.Option(nbd.OptGo, nbdtest.InfoData("disk"))...)
	ask = append(ask, new(script).write(0, pattern(512, 1)).add(nbd.CmdRead, 0, 512, nil).disc().b.Bytes()...)
	if _, err := c.Write(ask); err != nil {
		t.Fatal(err)
	}
	n := 0
	for b := make([]byte, 4096); err == nil; {
		var k int
		k, err = c.Read(b)
		n += k
	}
	want := nbd.NewstyleHeaderSize + 2*nbd.OptionReplyHeaderSize + nbd.InfoExportSize + 2*nbd.SimpleReplySize + 512
	if n != want {
		t.Errorf("%d bytes came back, want %d", n, want)
	}
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	if p := r.table.peers[0]; p.Local || p.Addr != c.LocalAddr().String() || p.String() != p.Addr {
		t.Errorf("peer %+v", p)
	}
}

func TestActivation(t *testing.T) {
	names := []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
	set := func(pid, fds string) {
		t.Setenv(names[0], pid)
		t.Setenv(names[1], fds)
		t.Setenv(names[2], "a:b")
	}
	me := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		pid, fds string
		fails    bool
	}{{"", "", false}, {"1", "2", false}, {me, "0", false}, {me, "many", true}, {me, "-1", true}, {me, "100000", true}} {
		set(c.pid, c.fds)
		ls, err := ActivatedListeners()
		if len(ls) != 0 || (err != nil) != c.fails {
			t.Errorf("LISTEN_PID=%s LISTEN_FDS=%s: %v, %v", c.pid, c.fds, ls, err)
		}
		if c.pid == me && os.Getenv("LISTEN_FDS") != "" {
			t.Error("the variables stay for children")
		}
	}

	// Descriptors as they would come, at places where this process has room.
	const first = 700
	place := func(fd int, l net.Listener) {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	u, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	u.(*net.UnixListener).SetUnlinkOnClose(false)
	path := u.Addr().String()
	tcp, err := ListenLoopback("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	place(first, u)
	place(first+1, tcp)
	ls, err := takeListeners(first, 2, []string{"nbd"})
	if err != nil || len(ls) != 2 || ls[0].Name != "nbd" || ls[1].Name != "" {
		t.Fatalf("%v, %v", ls, err)
	}
	dev, _ := ram(mib)
	r := newRig(t, Config{}, dev)
	go r.srv.Serve(ls[0], r.table)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := nbdtest.Connect(c.(*net.UnixConn), "disk", nbdtest.Features{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.Disconnect(); err != nil {
		t.Error(err)
	}
	ls[1].Close()

	everywhere, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	place(first, everywhere)
	if _, err := takeListeners(first, 1, nil); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("a socket open to all machines: %v", err)
	}
	if _, err := takeListeners(first+90, 1, nil); err == nil {
		t.Error("a descriptor that is none")
	}
}

// TestServeListenerErrors: it goes on when there are too many descriptors, and ends when its
// listener breaks.
func TestServeListenerErrors(t *testing.T) {
	dev, _ := ram(mib)
	broken := errors.New("broken")
	l := &failing{errs: []error{syscall.EMFILE, syscall.ECONNABORTED, broken}}
	r := newRig(t, Config{}, dev)
	if err := New(Config{}, zap.NewNop()).Serve(l, r.table); !errors.Is(err, broken) {
		t.Errorf("Serve: %v", err)
	}
	if !l.closed {
		t.Error("the listener stays open")
	}
}

type failing struct {
	errs   []error
	closed bool
}

func (l *failing) Accept() (net.Conn, error) {
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: err}
}
func (l *failing) Close() error   { l.closed = true; return nil }
func (l *failing) Addr() net.Addr { return &net.UnixAddr{} }
