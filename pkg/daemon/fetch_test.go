package daemon

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
	"sealdisk/pkg/keyfetch"
)

// changes counts the starts and ends of children of the latest fetching.
var changes atomic.Int32

// fetching is a launcher's fetcher with an engine's end of the link to it.
// Its children are the test binary as fetch-key.
func fetching(t *testing.T, misbehave string) (*fetcher, *launcherLink, Config) {
	t.Helper()
	cfg := dirs(t)
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.StateDir, "misbehave"), []byte(misbehave), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFetcher(newSpawner(), zap.NewNop(), cfg.fetchArgs(), func(int) { changes.Add(1) })
	changes.Store(0)
	ours, theirs, err := linkPair()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { f.serve(ours); close(served) }()
	l, err := newLauncherLink(theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		<-served
		ours.Close()
		f.stop()
	})
	return f, l, cfg
}

// conversation is one end of a pair for a child, which reads the end of the
// other when the child is gone.
func conversation(t *testing.T) (ours net.Conn, theirs *os.File) {
	t.Helper()
	c, f, err := linkPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); f.Close() })
	return c, f
}

// ends waits for the end of a conversation.
func ends(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	var b [100]byte
	if n, err := c.Read(b[:]); err == nil || os.IsTimeout(err) {
		t.Fatalf("read %q, %v: the child is still there", b[:n], err)
	}
}

// A child gets its descriptors and nobody else keeps them: when it ends, the
// engine sees it at once.
func TestSpawn(t *testing.T) {
	_, l, _ := fetching(t, "")
	c, theirs := conversation(t)
	if err := l.Spawn(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if _, err := c.Write([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	var b [1000]byte
	n, err := c.Read(b[:])
	if err != nil || !strings.Contains(string(b[:n]), "malformed message") {
		t.Errorf("answer %q, %v", b[:n], err)
	}
	ends(t, c)
}

// A child that hangs is killed at its deadline.
func TestDeadlineKills(t *testing.T) {
	f, l, _ := fetching(t, "fetch-key")
	c, theirs := conversation(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := l.Spawn(ctx, theirs); err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	theirs.Close()
	ends(t, c)
	if d := time.Since(began); d < fetchGrace {
		t.Errorf("killed after %v, before its time", d)
	}
	f.stop()
}

// Children that hang do not pile up, and go when the launcher stops.
func TestTooManyChildren(t *testing.T) {
	f, l, _ := fetching(t, "fetch-key")
	var conns []net.Conn
	for i := range maxFetching + 1 {
		c, theirs := conversation(t)
		err := l.Spawn(t.Context(), theirs)
		theirs.Close()
		switch {
		case i < maxFetching && err != nil:
			t.Fatal(err)
		case i == maxFetching && (err == nil || !strings.Contains(err.Error(), "too many")):
			t.Errorf("one too many: %v", err)
		}
		conns = append(conns, c)
	}
	f.stop()
	for _, c := range conns {
		ends(t, c)
	}
	if n := len(f.children); n != 0 {
		t.Errorf("%d children are left", n)
	}
}

// Whatever the engine says, the launcher does no more than it should, keeps
// no descriptor and goes on.
func TestLauncherAgainstBadEngine(t *testing.T) {
	_, l, _ := fetching(t, "")
	_, theirs := conversation(t)
	// The garbage collector would close what was forgotten.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	before := openFiles(t)
	raw := func(msg string, fds ...int) {
		t.Helper()
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		if _, _, err := l.conn.WriteMsgUnix([]byte(msg), oob, nil); err != nil {
			t.Fatal(err)
		}
	}
	fd := int(theirs.Fd())
	for _, msg := range []string{
		"hello", "{}", `{"op":"fetch"}`, `{"op":"fetch","id":0,"timeout_ms":1000}`, `{"op":"exec","id":999,"timeout_ms":1000}`,
		`{"op":"fetch","id":999,"timeout_ms":-1}`, `{"op":"fetch","id":999,"timeout_ms":99999999}`,
		`{"op":"fetch","id":999,"timeout_ms":1000,"args":["sh"]}`, strings.Repeat(" ", maxLinkMessage+1),
	} {
		raw(msg)
		raw(msg, fd)
		raw(msg, fd, fd)
	}
	raw(`{"op":"fetch","id":999,"timeout_ms":1000}`) // no descriptors
	raw(`{"op":"fetch","id":999,"timeout_ms":1000}`, fd, fd, fd)
	raw(`{"op":"fetch","id":999,"timeout_ms":1000}`, fd, fd, fd, fd, fd, fd, fd, fd)
	// It still works, and by its answer all that came before is done.
	c, f := conversation(t)
	if err := l.Spawn(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	c.Close()
	if n := changes.Load(); n > 2 {
		t.Errorf("children came and went %d times, want one that comes and goes", n)
	}
	eventually(t, "no descriptor is kept", func() bool { return openFiles(t) <= before })
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// An engine whose launcher is gone does not wait.
func TestSpawnWithoutLauncher(t *testing.T) {
	ours, theirs, err := linkPair()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLauncherLink(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours.Close()
	_, f := conversation(t)
	if err := l.Spawn(t.Context(), f); err == nil {
		t.Error("no error")
	}
}

// A key child that hangs costs its deadline, no more, and says that the KMS
// does not answer.
func TestClientOverLauncher(t *testing.T) {
	_, l, _ := fetching(t, "fetch-key")
	c := keyfetch.New(l, keyfetch.Options{Timeout: 100 * time.Millisecond})
	_, err := c.Create(t.Context(), header(), "")
	if err == nil || !strings.Contains(err.Error(), "KMS is unreachable") {
		t.Errorf("error %v", err)
	}
}

// The commands that only the daemon starts say so.
func TestHiddenCommandsAlone(t *testing.T) {
	if err := RunFetchKey("/none", false); api.ClassOf(err) != api.ClassUsage {
		t.Errorf("fetch-key: %v", err)
	}
	if err := RunEngine(t.Context(), EngineConfig{}, "", zap.NewNop()); api.ClassOf(err) != api.ClassUsage {
		t.Errorf("engine: %v", err)
	}
}
