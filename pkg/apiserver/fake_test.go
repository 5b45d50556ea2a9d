package apiserver

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/disk"
)

const (
	diskID = "3f0c6a1e-95a1-4b0e-8a53-5b6e0a0b6f01"
	jobID  = "job-1"
	keyID  = "0d0466b0-e727-4d9c-b35d-f84bb474a37f"
)

// fakeDisks has one disk in project "default" and remembers what it was told.
type fakeDisks struct {
	mu       sync.Mutex
	created  *disk.CreateOptions
	attached *disk.AttachOptions
	imported *disk.ImportOptions
	err      error
	panics   bool
	list     []disk.Info
}

var someTime = time.Date(2026, 3, 4, 5, 6, 7, 89000, time.UTC)

func oneDisk() disk.Info {
	return disk.Info{Record: disk.Record{
		ID: diskID, Project: "default", Name: "data", State: disk.StateInUse, Size: 100 << 20, BlockSize: 512, Discard: true,
		Created: someTime, Updated: someTime,
		Encryption: &disk.Encryption{Provider: "embedded", KeyID: keyID, MinGeneration: 1, SectorSize: 4096, Holes: true},
		Wish:       &disk.Wish{UID: 7, Since: someTime, AtBoot: true},
		Job:        &disk.Job{ID: jobID, Type: disk.JobCreate, Status: disk.JobSuccess},
	}, URI: "nbd+unix:///data?socket=/run/x.sock", KeyMemory: "memfd_secret"}
}

func (f *fakeDisks) check(project, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panics {
		panic("boom")
	}
	if f.err != nil {
		return f.err
	}
	if project != "default" || id != diskID && id != jobID {
		return &api.Error{Class: api.ClassNotFound, Code: api.CodeNotFound, Message: "disk " + id + " does not exist"}
	}
	return nil
}

var oneJob = disk.Job{ID: jobID, Type: disk.JobCreate, Status: disk.JobRunning, Project: "default", DiskID: diskID, Disk: "data", Size: 1, Begin: someTime}

func (f *fakeDisks) Create(_ context.Context, o disk.CreateOptions) (disk.Job, error) {
	f.mu.Lock()
	f.created = &o
	f.mu.Unlock()
	return oneJob, f.check(o.Project, diskID)
}
func (f *fakeDisks) List(string) []disk.Info { return slices.Clone(f.list) }
func (f *fakeDisks) Show(p, id string) (disk.Info, error) {
	return oneDisk(), f.check(p, id)
}
func (f *fakeDisks) Attach(_ context.Context, p, id string, o disk.AttachOptions) (disk.Info, error) {
	f.mu.Lock()
	f.attached = &o
	f.mu.Unlock()
	return oneDisk(), f.check(p, id)
}
func (f *fakeDisks) Detach(_ context.Context, p, id string) error { return f.check(p, id) }
func (f *fakeDisks) Delete(p, id string) (disk.Job, error)        { return oneJob, f.check(p, id) }
func (f *fakeDisks) Job(p, id string) (disk.Job, error)           { return oneJob, f.check(p, id) }
func (f *fakeDisks) Finalize(_ context.Context, p, id string) (disk.Job, error) {
	return oneJob, f.check(p, id)
}
func (f *fakeDisks) Import(_ context.Context, o disk.ImportOptions) (disk.Job, error) {
	f.mu.Lock()
	f.imported = &o
	f.mu.Unlock()
	return oneJob, f.check(o.Project, diskID)
}

// bench is a server without a socket.
type bench struct {
	t     testing.TB
	disks *fakeDisks
	s     *Server
	role  Role
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, disks: &fakeDisks{list: []disk.Info{oneDisk()}}, role: RoleAdmin}
	b.s = New(Config{Disks: b.disks, Log: zap.NewNop(), HostName: "host",
		Connections: func(id string) int { return map[string]int{diskID: 3}[id] },
		Status:      func(context.Context) api.Status { return api.Status{Version: "v1", PID: 42} },
		Role:        func(Peer) Role { return b.role }})
	return b
}

func withPeer(ctx context.Context) context.Context {
	return context.WithValue(ctx, peerKey{}, Peer{UID: 7, GID: 8, PID: 9, Known: true})
}

// ask sends one request as a peer with uid 7.
func (b *bench) ask(method, path, body string, header ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, in)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	r = r.WithContext(withPeer(b.t.Context()))
	w := httptest.NewRecorder()
	b.s.ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); got != "application/json" || !json.Valid(w.Body.Bytes()) || w.Header().Get("X-Request-Id") == "" {
		b.t.Fatalf("%s %s: type %q, body %q, request id %q", method, path, got, w.Body, w.Header().Get("X-Request-Id"))
	}
	return w
}

// expect asks and fails unless the reply has this status; an error's code is returned too.
func (b *bench) expect(status int, method, path, body string, header ...string) (reply map[string]any, e *api.Error) {
	b.t.Helper()
	w := b.ask(method, path, body, header...)
	if w.Code != status {
		b.t.Fatalf("%s %s: status %d, want %d: %s", method, path, w.Code, status, w.Body)
	}
	if status >= http.StatusBadRequest {
		var eb api.ErrorBody
		if err := json.Unmarshal(w.Body.Bytes(), &eb); err != nil || eb.Error == nil || eb.Error.Code == "" || eb.Error.Message == "" || eb.RequestID == "" {
			b.t.Fatalf("%s %s: %s", method, path, w.Body)
		}
		return nil, eb.Error
	}
	if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil {
		b.t.Fatal(err)
	}
	return reply, nil
}
