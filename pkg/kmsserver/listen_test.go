package kmsserver

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"sealdisk/pkg/api"
)

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListenModes(t *testing.T) {
	for _, tt := range []struct {
		name string
		gid  int
		mode os.FileMode
	}{{"alone", -1, 0o600}, {"with a group", os.Getegid(), 0o660}} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "run", "kms.sock")
			l, release, err := listen(path, tt.gid)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			defer l.Close()
			if st, err := os.Stat(path); err != nil || st.Mode().Perm() != tt.mode {
				t.Errorf("%v, %v", st.Mode(), err)
			}
			if st, err := os.Stat(filepath.Dir(path)); err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("directory: %v, %v", st.Mode(), err)
			}
		})
	}
}

func TestListenNeverStealsALiveSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "kms.sock")
	foreign, err := net.Listen("unix", path) // a program without the lock
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := listen(path, -1); api.ClassOf(err) != api.ClassConflict {
		t.Errorf("a foreign live socket: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the live socket is gone: %v", err)
	} else {
		c.Close()
	}
	foreign.(*net.UnixListener).SetUnlinkOnClose(false)
	foreign.Close() // now it is stale

	l, release, err := listen(path, -1)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if _, _, err := listen(path, -1); api.ClassOf(err) != api.ClassConflict {
		t.Errorf("a second KMS: %v", err)
	}
	l.Close()
	release()
	l, release, err = listen(path, -1)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	l.Close()
	release()
}

func TestListenRefuses(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := listen(file, -1); api.ClassOf(err) != api.ClassConflict {
		t.Errorf("a file in the way: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file was changed: %v", err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 108-len(dir)-1))
	if _, _, err := listen(long, -1); api.ClassOf(err) != api.ClassUsage || !strings.Contains(err.Error(), "107") {
		t.Errorf("%d bytes: %v", len(long), err)
	}
	l, release, err := listen(long[:len(long)-1], -1)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(long)-1, err)
	}
	l.Close()
	release()
}

// A KMS that holds the lock may be about to replace the stale socket.
func TestListenWaitsForNobodysLock(t *testing.T) {
	path := filepath.Join(shortDir(t), "kms.sock")
	lock, err := lockBeside(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := listen(path, -1); api.ClassOf(err) != api.ClassConflict {
		t.Errorf("while another starts: %v", err)
	}
	lock.Close()
	l, release, err := listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	release()
}

// Of many that start at once on one stale socket exactly one listens.
func TestListenRace(t *testing.T) {
	path := filepath.Join(shortDir(t), "kms.sock")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	var wg sync.WaitGroup
	got := make(chan net.Listener, 16)
	for range cap(got) {
		wg.Go(func() {
			if l, _, err := listen(path, -1); err == nil {
				got <- l
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Errorf("%d listen", len(got))
	}
	for range len(got) {
		(<-got).Close()
	}
}

// endless is a listener on which somebody always waits to be accepted.
type endless struct {
	net.Listener
	accepted int
}

func (e *endless) Accept() (net.Conn, error) {
	e.accepted++
	c, _ := net.Pipe()
	return c, nil
}

func (e *endless) Close() error { return nil }

func TestConnectionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &endless{}
		l := limit(inner, 2)
		conns := make(chan net.Conn, 10)
		go func() {
			defer close(conns)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				conns <- c
			}
		}()
		count := func(want int) {
			t.Helper()
			synctest.Wait()
			if inner.accepted != want {
				t.Errorf("%d connections were accepted, want %d", inner.accepted, want)
			}
		}
		count(2)
		first := <-conns
		first.Close()
		first.Close() // gives back one place, not two
		count(3)
		(<-conns).Close()
		count(4)
		l.Close() // ends the Accept that waits for a place
		for c := range conns {
			c.Close()
		}
	})
}
