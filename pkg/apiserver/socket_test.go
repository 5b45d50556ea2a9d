package apiserver

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/client"
)

// TestOverASocket: the real client, and the peer as the kernel tells it.
func TestOverASocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sd") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var peer Peer
	s := New(Config{Disks: &fakeDisks{}, Log: zap.NewNop(), Status: func(context.Context) api.Status { return api.Status{PID: 42} },
		Role: func(p Peer) Role { peer = p; return RoleAdmin }})
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	c := client.New(filepath.Join(dir, "api.sock"))
	if st, err := c.Status(t.Context()); err != nil || st.PID != 42 {
		t.Fatalf("%+v, %v", st, err)
	}
	if peer != (Peer{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid()), Known: true}) {
		t.Fatalf("%+v", peer)
	}
	v, err := c.Find(t.Context(), "default", diskID)
	if err != nil || v.ID != diskID || v.Sealdisk.URI == "" {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := c.Show(t.Context(), "default", "nothing"); api.ClassOf(err) != api.ClassNotFound {
		t.Fatalf("got %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	done.Wait()
	if _, err := c.Status(t.Context()); api.ClassOf(err) != api.ClassDaemonUnreachable {
		t.Fatalf("got %v", err)
	}
}
