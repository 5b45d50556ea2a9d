package apiserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"sealdisk/pkg/api"
)

// fill writes a path of the table with real values.
func fill(path string) string {
	return strings.NewReplacer("{project}", "default", "{id}", diskID).Replace(path)
}

func TestEveryRouteAnswers(t *testing.T) {
	want := map[string]int{
		"POST /v2.1/{project}/cloudvolumes":               202,
		"GET /v2/{project}/cloudvolumes/detail":           200,
		"GET /v2/{project}/cloudvolumes/{id}":             200,
		"DELETE /v2/{project}/cloudvolumes/{id}":          200,
		"POST /v2.1/{project}/cloudvolumes/{id}/action":   501,
		"GET /v1/{project}/jobs/{id}":                     200,
		"POST /sealdisk/v1/{project}/disks/{id}/attach":   200,
		"POST /sealdisk/v1/{project}/disks/{id}/detach":   200,
		"POST /sealdisk/v1/{project}/disks/{id}/finalize": 202,
		"POST /sealdisk/v1/{project}/disks/import":        202,
		"GET /sealdisk/v1/status":                         200,
	}
	if len(want) != len(routes) {
		t.Fatalf("%d routes, %d in the test", len(routes), len(want))
	}
	for _, rt := range routes {
		t.Run(rt.method+" "+rt.path, func(t *testing.T) {
			status, ok := want[rt.method+" "+rt.path]
			if !ok {
				t.Fatal("not in the test")
			}
			body := ""
			if rt.path == "/v2.1/{project}/cloudvolumes" {
				body = `{"volume":{"name":"a","size":1}}`
			}
			newBench(t).expect(status, rt.method, fill(rt.path), body)
		})
	}
}

func TestNoRouteAndNoMethod(t *testing.T) {
	b := newBench(t)
	for _, path := range []string{"/", "/v2/default", "/v2//cloudvolumes/detail", "/v2/default/cloudvolumes/", "/v2/default/cloudvolumes/" + diskID + "/x", "/v9/default/jobs/1"} {
		b.expect(http.StatusNotFound, "GET", path, "")
	}
	for _, rt := range routes {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
			if found, _, _ := match(method, fill(rt.path)); found != nil {
				continue
			}
			w := b.ask(method, fill(rt.path), "")
			if w.Code != http.StatusMethodNotAllowed || !strings.Contains(w.Header().Get("Allow"), rt.method) {
				t.Errorf("%s %s: %d, Allow %q", method, rt.path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}

func TestEscapedSlashStaysInItsSegment(t *testing.T) {
	rt, vars, _ := match("GET", "/v2/default/cloudvolumes/a%2Fb")
	if rt == nil || vars["id"] != "a/b" {
		t.Fatalf("%v %v", rt, vars)
	}
	newBench(t).expect(http.StatusNotFound, "GET", "/v2/default/cloudvolumes/..%2F..%2Fetc", "")
}

func TestBodies(t *testing.T) {
	const create = "/v2.1/default/cloudvolumes"
	attach := fill("/sealdisk/v1/{project}/disks/{id}/attach")
	good := `{"volume":{"name":"a","size":1}}`
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
	}{
		"good":                    {"POST", create, good, nil, 202},
		"with a charset":          {"POST", create, good, []string{"Content-Type", "application/json;charset=utf-8"}, 202},
		"form":                    {"POST", create, good, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		"no type":                 {"POST", create, good, []string{"Content-Type", ""}, 415},
		"malformed type":          {"POST", create, good, []string{"Content-Type", ";;"}, 415},
		"too long":                {"POST", create, `{"volume":{"name":"` + strings.Repeat("a", small) + `"}}`, nil, 413},
		"body where none belongs": {"GET", fill("/v2/{project}/cloudvolumes/{id}"), "{}", nil, 413},
		"empty":                   {"POST", create, "", nil, 400},
		"not JSON":                {"POST", create, "volume", nil, 400},
		"cut":                     {"POST", create, good[:20], nil, 400},
		"two values":              {"POST", create, good + good, nil, 400},
		"unknown field":           {"POST", create, `{"volume":{"name":"a","size":1},"x":1}`, nil, 400},
		"unknown field within":    {"POST", create, `{"volume":{"name":"a","size":1,"x":1}}`, nil, 400},
		"null":                    {"POST", create, "null", nil, 400},
		"array":                   {"POST", create, "[]", nil, 400},
		"wrong type":              {"POST", create, `{"volume":{"name":1,"size":1}}`, nil, 400},
		"fraction":                {"POST", create, `{"volume":{"name":"a","size":1.5}}`, nil, 400},
		"number too large":        {"POST", create, `{"volume":{"name":"a","size":1e40}}`, nil, 400},
		"deep":                    {"POST", create, strings.Repeat("[", 20000), nil, 400},
		"attach without a body":   {"POST", attach, "", nil, 200},
		"attach, unknown field":   {"POST", attach, `{"device":"/dev/nbd0"}`, nil, 400},
		"detach with a field":     {"POST", fill("/sealdisk/v1/{project}/disks/{id}/detach"), `{"force":true}`, nil, 400},
	} {
		t.Run(name, func(t *testing.T) {
			newBench(t).expect(c.status, c.method, c.path, c.body, c.header...)
		})
	}
}

func TestWhoMay(t *testing.T) {
	b := newBench(t)
	b.role = RoleNone
	_, e := b.expect(http.StatusForbidden, "GET", "/sealdisk/v1/status", "")
	if e.Class != api.ClassDenied {
		t.Fatalf("%+v", e)
	}
	b.expect(http.StatusForbidden, "GET", "/nothing", "") // strangers learn nothing
	b.role = RoleUser
	b.expect(200, "GET", fill("/v2/{project}/cloudvolumes/{id}"), "")
	b.expect(http.StatusForbidden, "POST", "/sealdisk/v1/default/disks/import", "{}")
	if b.disks.imported != nil {
		t.Fatal("a user imported")
	}
	// A peer that the kernel does not name is nobody, whatever Role says.
	b.role = RoleAdmin
	w := httptest.NewRecorder()
	b.s.ServeHTTP(w, httptest.NewRequest("GET", "/sealdisk/v1/status", nil))
	if w.Code != http.StatusForbidden {
		t.Fatalf("status %d", w.Code)
	}
}

func TestDefaultRoleIsOwnUserAndRoot(t *testing.T) {
	s := New(Config{Log: newBench(t).s.cfg.Log})
	for uid, want := range map[uint32]Role{0: RoleAdmin, 12345: RoleNone} {
		if got := s.cfg.Role(Peer{UID: uid, Known: true}); got != want {
			t.Errorf("uid %d: role %d, want %d", uid, got, want)
		}
	}
}

func TestErrorsOfEachClass(t *testing.T) {
	for class, status := range map[api.Class]int{
		api.ClassInternal: 500, api.ClassUsage: 400, api.ClassNotFound: 404, api.ClassConflict: 409, api.ClassDenied: 403,
		api.ClassKeyUnusable: 400, api.ClassKMSUnreachable: 503, api.ClassNoSpace: 413, api.ClassCorrupt: 500,
	} {
		b := newBench(t)
		b.disks.err = &api.Error{Class: class, Code: "EVS.1", Message: "m", Hint: "h", Err: errors.New("cause")}
		for _, rt := range routes {
			if rt.path == "/v2/{project}/cloudvolumes/detail" || rt.path == "/sealdisk/v1/status" {
				continue
			}
			body := ""
			if rt.path == "/v2.1/{project}/cloudvolumes" {
				body = `{"volume":{"name":"a","size":1}}`
			}
			_, e := b.expect(status, rt.method, fill(rt.path), body)
			if e.Class != class || e.Code != "EVS.1" || e.Message != "m" || e.Hint != "h" {
				t.Errorf("%s: %+v", rt.path, e)
			}
		}
	}
}

func TestInternalErrorsTellNoDetails(t *testing.T) {
	b := newBench(t)
	b.disks.err = errors.New("secret detail")
	w := b.ask("GET", fill("/v2/{project}/cloudvolumes/{id}"), "")
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), w.Header().Get("X-Request-Id")) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	b.disks.err, b.disks.panics = nil, true
	if w = b.ask("GET", fill("/v2/{project}/cloudvolumes/{id}"), ""); w.Code != 500 || strings.Contains(w.Body.String(), "boom") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func TestTimeoutsAndLimitsAreSet(t *testing.T) {
	for _, rt := range routes {
		if rt.timeout <= 0 || rt.role == RoleNone || (rt.limit > 0) != slices.Contains([]string{"POST", "PUT"}, rt.method) {
			t.Errorf("%s %s: timeout %v, role %d, limit %d", rt.method, rt.path, rt.timeout, rt.role, rt.limit)
		}
	}
	if h := newBench(t).s.http; h.ReadHeaderTimeout <= 0 || h.ReadTimeout <= 0 || h.IdleTimeout <= 0 || h.MaxHeaderBytes <= 0 {
		t.Errorf("%+v", h)
	}
}

func FuzzBody(f *testing.F) {
	f.Add(uint8(0), []byte(`{"volume":{"name":"a","size":1,"metadata":{"__system__encrypted":"1"},"sealdisk":{"size_bytes":4096}}}`))
	f.Add(uint8(6), []byte(`{"read_only":true}`))
	f.Add(uint8(9), []byte(`{"path":"/x","name":"y"}`))
	f.Add(uint8(4), []byte(`{"os-extend":{"new_size":2}}`))
	f.Fuzz(func(t *testing.T, n uint8, body []byte) {
		rt := routes[int(n)%len(routes)]
		w := newBench(t).ask(rt.method, fill(rt.path), string(body))
		if w.Code >= 500 && w.Code != 501 {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, rt := range routes {
		f.Add(rt.method, fill(rt.path), "limit=1&offset=2&sort_key=size&sort_dir=asc&ids=['a','b']")
	}
	f.Add("GET", "/v2/%zz/cloudvolumes/..%2f", "limit=-1")
	f.Fuzz(func(t *testing.T, method, path, query string) {
		rt, vars, allowed := match(method, path)
		if rt != nil && (rt.method != method || len(allowed) > 0) {
			t.Fatalf("%+v %v", rt, allowed)
		}
		for name, v := range vars {
			if v == "" {
				t.Fatalf("%s is empty", name)
			}
		}
		b := newBench(t)
		r := httptest.NewRequest("GET", "/v2/default/cloudvolumes/detail", nil)
		r.URL.RawQuery = query
		r = r.WithContext(withPeer(t.Context()))
		w := httptest.NewRecorder()
		b.s.ServeHTTP(w, r)
		if w.Code != 200 && w.Code != 400 || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}
