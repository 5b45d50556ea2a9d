package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"net"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/apiserver"
	"sealdisk/pkg/disk"
	"sealdisk/pkg/disk/disktest"
	"sealdisk/pkg/secmem"
)

// station is a daemon within the test: real disks and API, a fake KMS, no NBD.
type station struct {
	t     *testing.T
	dir   string
	keys  *disktest.Keys
	disks *disk.Manager
}

// noNBD publishes nothing.
type noNBD struct{}

func (*noNBD) Publish(a *disk.Attachment) (string, error) {
	return fmt.Sprintf("nbd+unix:///%s?socket=/run/sealdisk/nbd/%s.sock", a.Name, a.ID), nil
}
func (*noNBD) Withdraw(context.Context, string) error { return nil }

func newStation(t *testing.T) *station {
	dir, err := os.MkdirTemp("", "sd") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &station{t: t, dir: dir, keys: &disktest.Keys{}}
	if err := os.Mkdir(s.run(), 0o700); err != nil {
		t.Fatal(err)
	}
	s.disks, err = disk.Open(disk.Config{StateDir: s.state(), Keys: s.keys, Publisher: &noNBD{}, Log: zap.NewNop(),
		Secmem: secmem.Options{ForceLocked: true}})
	if err != nil {
		t.Fatal(err)
	}
	server := apiserver.New(apiserver.Config{Disks: s.disks, Log: zap.NewNop(), HostName: "host",
		Status: func(context.Context) api.Status {
			return api.Status{Version: "v1", PID: 42, KeyMemory: "mlock", Disks: s.disks.States(), Warnings: []string{"a warning"},
				KMS: api.KMSHealth{Reachable: false, Reason: "refused"}}
		}})
	l, err := net.Listen("unix", filepath.Join(s.run(), "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(server.Shutdown(context.Background()), s.disks.Close(context.Background())); err != nil {
			t.Error(err)
		}
		done.Wait()
	})
	return s
}

func (s *station) run() string   { return filepath.Join(s.dir, "run") }
func (s *station) state() string { return filepath.Join(s.dir, "state") }

// result is what a command wrote and returned.
type result struct {
	out, err string
	code     int
}

// do runs a command line; stdin is what is typed, not on a terminal.
func (s *station) do(args ...string) result {
	s.t.Helper()
	return runCLI(s.t, "", append([]string{"--run-dir", s.run(), "--state-dir", s.state()}, args...)...)
}

func runCLI(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, words bytes.Buffer
	a := &App{In: strings.NewReader(stdin), Out: &out, Err: &words}
	code := Run(t.Context(), args, a)
	return result{out.String(), words.String(), code}
}

// must runs a command that has to succeed and returns its data.
func (s *station) must(args ...string) string {
	s.t.Helper()
	r := s.do(args...)
	if r.code != 0 {
		s.t.Fatalf("%q: exit %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// refused runs a command that has to fail with this exit code, words on stderr
// only, and returns them.
func (s *station) refused(code int, args ...string) string {
	s.t.Helper()
	r := s.do(args...)
	if r.code != code || !strings.HasPrefix(r.err, "error: ") || r.out != "" {
		s.t.Fatalf("%q: exit %d, want %d\nstdout: %sstderr: %s", args, r.code, code, r.out, r.err)
	}
	return r.err
}

func (s *station) show(name string) (v api.Volume) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.must("disk", "show", name, "-o", "json")), &v); err != nil {
		s.t.Fatal(err)
	}
	return v
}

func wantIn(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}
