package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealdisk/pkg/api"
)

// serve answers on a socket with h and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		s.Close()
		done.Wait()
		os.RemoveAll(dir)
	})
	return New(path)
}

func wantClass(t *testing.T, err error, class api.Class, words ...string) {
	t.Helper()
	if api.ClassOf(err) != class || err == nil {
		t.Fatalf("got %v of class %s, want %s", err, api.ClassOf(err), class)
	}
	var e *api.Error
	if !errors.As(err, &e) {
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Message+e.Hint, w) {
			t.Fatalf("%q is not in %q %q", w, e.Message, e.Hint)
		}
	}
}

func TestUnreachable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sock")
	_, err := New(path).Status(t.Context())
	wantClass(t, err, api.ClassDaemonUnreachable, "sealdisk serve", path)

	c := serve(t, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	_, err = c.Status(t.Context())
	wantClass(t, err, api.ClassDaemonUnreachable)

	stopped, stop := context.WithCancel(t.Context())
	stop()
	_, err = c.Status(stopped)
	wantClass(t, err, api.ClassInternal, "interrupted")
}

// deadSocket leaves a socket at path that nobody listens on, as a killed daemon does.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRestartingDaemonIsWaitedFor(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"pid":42}`) })
	path := filepath.Join(filepath.Dir(c.socket), "dead.sock")
	deadSocket(t, path)
	back := time.AfterFunc(restartTime/10, func() {
		if err := os.Rename(c.socket, path); err != nil {
			t.Error(err)
		}
	})
	defer back.Stop()
	if s, err := New(path).Status(t.Context()); err != nil || s.PID != 42 {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestDeadDaemonIsNotWaitedForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead.sock")
	deadSocket(t, path)
	_, err := New(path).Status(t.Context())
	wantClass(t, err, api.ClassDaemonUnreachable, "sealdisk serve")
}

func TestReplies(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		class  api.Class
		word   string
	}{
		"error body":               {409, `{"error":{"class":"conflict","code":"EVS.5400","message":"m","hint":"h"}}`, api.ClassConflict, "mh"},
		"class counts, not status": {400, `{"error":{"class":"key_unusable","code":"EVS.2040","message":"m"}}`, api.ClassKeyUnusable, "m"},
		"no class":                 {404, `{"error":{"code":"EVS.5404","message":"m"}}`, api.ClassNotFound, "m"},
		"no message":               {403, `{"error":{}}`, api.ClassDenied, "403"},
		"not JSON":                 {502, `<html>`, api.ClassInternal, "502"},
		"malformed success":        {200, `{"pid":"x"}`, api.ClassInternal, ""},
		"redirect":                 {302, ``, api.ClassInternal, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			})
			_, err := cl.Status(t.Context())
			wantClass(t, err, c.class, c.word)
		})
	}
}

func TestEndlessReplyIsCut(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	_, err := c.Status(t.Context())
	wantClass(t, err, api.ClassInternal)
}

func TestListGoesOverPages(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var off int
		fmt.Sscan(r.URL.Query().Get("offset"), &off)
		reply := api.VolumesResponse{Count: 5}
		for i := off; i < min(off+2, 5); i++ {
			reply.Volumes = append(reply.Volumes, api.Volume{Name: fmt.Sprint(i)})
		}
		_ = json.NewEncoder(w).Encode(reply)
	})
	list, err := c.List(t.Context(), "default", "")
	if err != nil || len(list) != 5 || list[4].Name != "4" {
		t.Fatalf("%v, %v", list, err)
	}
}

func TestFind(t *testing.T) {
	const id = "3f0c6a1e-95a1-4b0e-8a53-5b6e0a0b6f01"
	var paths []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.EscapedPath())
		if strings.HasSuffix(r.URL.Path, "/detail") {
			_ = json.NewEncoder(w).Encode(api.VolumesResponse{})
			return
		}
		_ = json.NewEncoder(w).Encode(api.VolumeResponse{Volume: api.Volume{ID: id}})
	})
	if v, err := c.Find(t.Context(), "default", id); err != nil || v.ID != id {
		t.Fatalf("%v, %v", v, err)
	}
	_, err := c.Find(t.Context(), "default", "data")
	wantClass(t, err, api.ClassNotFound, "data", "disk list")
	_, err = c.Find(t.Context(), "a/b", "")
	wantClass(t, err, api.ClassNotFound)
	if want := "/v2/default/cloudvolumes/" + id + " /v2/default/cloudvolumes/detail /v2/a%2Fb/cloudvolumes/detail"; strings.Join(paths, " ") != want {
		t.Fatalf("asked %q", paths)
	}
}

func TestWait(t *testing.T) {
	var looks atomic.Int32
	job := func(last api.Job) *Client {
		looks.Store(0)
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			if looks.Add(1) < 3 {
				_ = json.NewEncoder(w).Encode(api.Job{Status: api.JobRunning})
				return
			}
			_ = json.NewEncoder(w).Encode(last)
		})
	}
	if j, err := job(api.Job{Status: api.JobSuccess, JobID: "j"}).Wait(t.Context(), "default", "j"); err != nil || j.JobID != "j" || looks.Load() != 3 {
		t.Fatalf("%+v, %v after %d looks", j, err, looks.Load())
	}
	_, err := job(api.Job{Status: api.JobFail, Class: api.ClassNoSpace, FailReason: "full", Hint: "h"}).Wait(t.Context(), "default", "j")
	wantClass(t, err, api.ClassNoSpace, "full", "h")
	_, err = job(api.Job{Status: api.JobFail}).Wait(t.Context(), "default", "j")
	wantClass(t, err, api.ClassInternal)

	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		fmt.Fprint(w, `{"error":{"class":"not_found","message":"m"}}`)
	})
	_, err = c.Wait(t.Context(), "default", "j")
	wantClass(t, err, api.ClassNotFound)
}
