package kmsserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms/keystore"
)

// recorder is a ResponseRecorder whose connection can be taken over.
type recorder struct {
	*httptest.ResponseRecorder
	raw  chan []byte
	took bool
}

func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	ours, theirs := net.Pipe()
	go func() {
		b, _ := io.ReadAll(ours)
		r.raw <- b
	}()
	r.took = true
	return theirs, bufio.NewReadWriter(bufio.NewReader(theirs), bufio.NewWriter(theirs)), nil
}

// FuzzRequest sends any body and header to any route in any role: the KMS
// answers each with JSON that it documents, and never with an internal error.
func FuzzRequest(f *testing.F) {
	dir := f.TempDir()
	store, err := keystore.Open(keystore.Options{Dir: dir + "/kms"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { store.Close() })
	own := uint32(os.Geteuid())
	s := New(store, Policy{ServiceUID: own}, false, zap.NewNop())
	if _, err := store.Grant("default", own); err != nil {
		f.Fatal(err)
	}
	_, wrapped, err := store.NewDataKey("default", api.DefaultKeyAlias, "a", make([]byte, 64))
	if err != nil {
		f.Fatal(err)
	}
	for i := range routes {
		for _, principal := range []string{"", api.PrincipalEVS} {
			f.Add(uint8(i), "default", principal, []byte(`{"key_id":"evs/default","key_alias":"n","datakey_length":"512","additional_authenticated_data":"sealdisk:x","datakey_cipher_length":"64","cipher_text":"00"}`))
			f.Add(uint8(i), "other", principal, []byte(`{}`))
		}
	}
	body, err := json.Marshal(api.DecryptDatakeyRequest{KeyID: api.DefaultKeyAlias, CipherText: strings.ToUpper(hex.EncodeToString(wrapped)), CipherLength: "64", AAD: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(7), "default", "", body)
	f.Add(uint8(12), "default", "", []byte(`{"salt":"00000000000000000000000000000000","time":1,"memory":64,"threads":1,"key":"`+strings.Repeat("ab", 32)+`"}`))

	f.Fuzz(func(t *testing.T, i uint8, project, principal string, body []byte) {
		rt := routes[int(i)%len(routes)]
		r, err := http.NewRequest(rt.method, "http://kms/x", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.SetPathValue("project", project)
		if principal != "" {
			r.Header[api.HeaderPrincipal] = []string{principal}
		}
		r = r.WithContext(context.WithValue(t.Context(), peerKey{}, Peer{UID: own}))
		w := &recorder{ResponseRecorder: httptest.NewRecorder(), raw: make(chan []byte, 1)}
		s.wrap(rt)(w, r)
		if w.took {
			if raw := <-w.raw; !bytes.HasPrefix(raw, []byte("HTTP/1.1 200 OK\r\n")) {
				t.Errorf("%s: %.60q", rt.path, raw)
			}
			return
		}
		if w.Code >= 500 {
			t.Errorf("%s answers %d: %s", rt.path, w.Code, w.Body)
		}
		var v map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Errorf("%s: %v: %q", rt.path, err, w.Body)
		}
		if _, failed := v["error"]; failed != (w.Code != http.StatusOK) {
			t.Errorf("%s: status %d with %s", rt.path, w.Code, w.Body)
		}
	})
}
