package dew

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

var kmsErrors = []error{kms.ErrNotFound, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrFrozen, kms.ErrDenied,
	kms.ErrNoAgency, kms.ErrBinding, kms.ErrThrottled, kms.ErrUnavailable, kms.ErrProtocol}

func wantOnly(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	for _, e := range kmsErrors {
		if e != want && errors.Is(err, e) {
			t.Errorf("error %v is also %q", err, e)
		}
	}
}

func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dew")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// fake serves h on a unix socket.
func fake(t *testing.T, h http.HandlerFunc) (socket string) {
	t.Helper()
	socket = filepath.Join(tempDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return socket
}

// raw answers every connection with the same bytes, whatever was asked.
func raw(t *testing.T, reply string) (socket string) {
	t.Helper()
	socket = filepath.Join(tempDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if q, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, q.Body) // else closing would reset the connection
			}
			_, _ = io.WriteString(c, reply)
			c.Close()
		}
	}()
	return socket
}

// each runs f for every call of a Provider.
func each(t *testing.T, socket string, f func(t *testing.T, err error)) {
	t.Helper()
	eachContext(t, t.Context(), socket, f)
}

func eachContext(t *testing.T, ctx context.Context, socket string, f func(t *testing.T, err error)) {
	t.Helper()
	p := New(socket)
	t.Run("describe", func(t *testing.T) { _, err := p.DescribeKey(ctx, "p", "k"); f(t, err) })
	t.Run("wrap", func(t *testing.T) { _, err := p.NewWrapped(ctx, "p", "k", "a"); f(t, err) })
	t.Run("unwrap", func(t *testing.T) {
		dst := bytes.Repeat([]byte{7}, kms.DKSize)
		err := p.Unwrap(ctx, "p", kms.Wrapped{KeyID: "k", Ciphertext: []byte{1}}, "a", dst)
		f(t, err)
		if err != nil && !bytes.Equal(dst, make([]byte, kms.DKSize)) {
			t.Error("a failed Unwrap left bytes in the destination")
		}
	})
}

func TestAnswersBecomeErrors(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		want   error
	}{
		{404, "KMS.0207", kms.ErrNotFound},
		{400, "KMS.0205", kms.ErrNotFound},
		{400, "KMS.0209", kms.ErrDisabled},
		{400, "KMS.0210", kms.ErrPendingDeletion},
		{400, api.CodeKMSFrozen, kms.ErrFrozen},
		{400, api.CodeKMSUnusable, kms.ErrDisabled},
		{403, "KMS.0306", kms.ErrDenied},
		{403, "KMS.0307", kms.ErrDenied},
		{403, api.CodeKMSNoAgency, kms.ErrNoAgency},
		{401, "KMS.0301", kms.ErrDenied},
		{403, "", kms.ErrDenied},
		{400, "KMS.2201", kms.ErrBinding},
		{400, "KMS.2202", kms.ErrBinding},
		{400, "KMS.2203", kms.ErrBinding},
		{429, "", kms.ErrThrottled},
		{429, "APIGW.0308", kms.ErrThrottled},
		{500, "KMS.0101", kms.ErrUnavailable},
		{500, "KMS.0102", kms.ErrUnavailable},
		{502, "", kms.ErrUnavailable},
		{503, "KMS.0209", kms.ErrUnavailable},
		{504, "", kms.ErrUnavailable},
		{400, "KMS.0308", kms.ErrProtocol},
		{400, "KMS.9999", kms.ErrProtocol},
		{404, "KMS.0201", kms.ErrProtocol},
		{302, "", kms.ErrProtocol},
		{204, "", kms.ErrProtocol},
	} {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.code), func(t *testing.T) {
			socket := fake(t, func(w http.ResponseWriter, _ *http.Request) {
				if tt.status == 302 {
					w.Header().Set("Location", "http://elsewhere/")
				}
				w.WriteHeader(tt.status)
				if tt.code != "" {
					_ = json.NewEncoder(w).Encode(api.KMSError{Error: api.KMSErrorDetail{Code: tt.code, Message: "words\nof the KMS"}})
				}
			})
			each(t, socket, func(t *testing.T, err error) {
				wantOnly(t, err, tt.want)
				var e *Error
				if !errors.As(err, &e) || e.Status != tt.status || e.Code != tt.code {
					t.Fatalf("%#v", err)
				}
				if tt.code != "" && !strings.Contains(err.Error(), "words of the KMS") {
					t.Errorf("the KMS's words are lost or not cleaned: %q", err)
				}
			})
		})
	}
}

func TestRepliesThatAreNone(t *testing.T) {
	json200 := func(body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	for _, tt := range []struct {
		name, reply string
		want        error
	}{
		{"nothing", "", kms.ErrUnavailable},
		{"no HTTP", "\x16\x03\x01\r\n\r\n", kms.ErrUnavailable},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-", kms.ErrUnavailable},
		{"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", kms.ErrUnavailable},
		{"half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{", kms.ErrUnavailable},
		{"empty body", json200(""), kms.ErrProtocol},
		{"no JSON", json200("<html>"), kms.ErrProtocol},
		{"empty object", json200("{}"), kms.ErrProtocol},
		{"array", json200("[]"), kms.ErrProtocol},
		{"null", json200("null"), kms.ErrProtocol},
		{"not hexadecimal", json200(`{"key_id":"k","cipher_text":"zz","data_key":"` + strings.Repeat("zz", 64) + `"}`), kms.ErrProtocol},
		{"short", json200(`{"data_key":"` + strings.Repeat("ab", 63) + `"}`), kms.ErrProtocol},
		{"long", json200(`{"data_key":"` + strings.Repeat("ab", 65) + `"}`), kms.ErrProtocol},
		{"endless", json200(strings.Repeat(" ", maxReply+2)), kms.ErrProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, raw(t, tt.reply), func(t *testing.T, err error) {
				wantOnly(t, err, tt.want)
				if err != nil && strings.Contains(err.Error(), "abab") {
					t.Errorf("the error shows the key: %v", err)
				}
			})
		})
	}
}

func TestUnreachable(t *testing.T) {
	dir := tempDir(t)
	refused := filepath.Join(dir, "refused")
	l, err := net.Listen("unix", refused)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for name, socket := range map[string]string{"absent": filepath.Join(dir, "absent"), "refused": refused, "no socket": dir} {
		t.Run(name, func(t *testing.T) {
			each(t, socket, func(t *testing.T, err error) { wantOnly(t, err, kms.ErrUnavailable) })
		})
	}
}

// A KMS that accepts and says nothing.
func TestDeadlineAndCancel(t *testing.T) {
	release := make(chan struct{})
	socket := fake(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(30*time.Millisecond))
		defer cancel()
		eachContext(t, ctx, socket, func(t *testing.T, err error) {
			wantOnly(t, err, kms.ErrUnavailable)
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v does not tell the deadline", err)
			}
		})
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		eachContext(t, ctx, socket, func(t *testing.T, err error) { wantOnly(t, err, context.Canceled) })
	})
}

func TestRequestsAreDEWs(t *testing.T) {
	type seen struct{ method, path, principal, contentType, body string }
	var got seen
	dk := bytes.Repeat([]byte{0x5e, 0xc2}, kms.DKSize/2)
	socket := fake(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.URL.Path, r.Header.Get(api.HeaderPrincipal), r.Header.Get("Content-Type"), string(b)}
		fmt.Fprintf(w, `{"key_info":{"key_id":"id","key_alias":"a","key_state":"3","default_key_flag":"1"},"key_id":"id","cipher_text":"0102","future":{"x":[1]},"data_key":%q,"datakey_length":"64"}`,
			strings.ToUpper(hex.EncodeToString(dk)))
	})
	p := New(socket)
	check := func(op, body string) {
		t.Helper()
		want := seen{"POST", "/v1.0/my project/kms/" + op, "evs", "application/json", body}
		if got != want {
			t.Errorf("sent %+v, want %+v", got, want)
		}
	}
	k, err := p.DescribeKey(t.Context(), "my project", "k")
	if err != nil || k != (kms.Key{ID: "id", Alias: "a", State: kms.StateDisabled, Default: true}) {
		t.Errorf("%+v, %v", k, err)
	}
	check("describe-key", `{"key_id":"k"}`)
	w, err := p.NewWrapped(t.Context(), "my project", "k", "sealdisk:x")
	if err != nil || w.KeyID != "id" || !bytes.Equal(w.Ciphertext, []byte{1, 2}) {
		t.Errorf("%v", err)
	}
	check("create-datakey-without-plaintext", `{"key_id":"k","datakey_length":"512","additional_authenticated_data":"sealdisk:x"}`)
	dst := make([]byte, kms.DKSize)
	if err := p.Unwrap(t.Context(), "my project", w, "sealdisk:x", dst); err != nil || !bytes.Equal(dst, dk) {
		t.Errorf("%v", err)
	}
	check("decrypt-datakey", `{"key_id":"id","cipher_text":"0102","datakey_cipher_length":"64","additional_authenticated_data":"sealdisk:x"}`)

	c := NewClient(socket)
	if _, err := c.ShowAgency(t.Context(), "my project"); err != nil || got.method != "GET" || got.path != "/sealdisk/v1/my project/agency" || got.principal != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestListOfKeysThatNeverEnds(t *testing.T) {
	socket := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"keys":["k"],"key_details":[{"key_id":"k"}],"truncated":"true","next_marker":""}`)
	})
	_, err := NewClient(socket).ListKeys(t.Context(), "p")
	wantOnly(t, err, kms.ErrProtocol)
}

func TestErrorsAreCutAndCleaned(t *testing.T) {
	err := errorOf(400, []byte(fmt.Sprintf(`{"error":{"error_code":"C\u001b[31m","error_msg":%q}}`, strings.Repeat("ä", 1000)+"\x1b[0m")))
	if s := err.Error(); len(s) > maxMessage+60 || strings.ContainsAny(s, "\x1b\n") {
		t.Errorf("%d bytes: %q", len(s), s)
	}
}

func FuzzErrorOf(f *testing.F) {
	f.Add(400, []byte(`{"error":{"error_code":"KMS.0209","error_msg":"x"}}`))
	f.Add(503, []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := errorOf(status, body)
		n := 0
		for _, e := range kmsErrors {
			if errors.Is(err, e) {
				n++
			}
		}
		if n != 1 || len(err.Error()) > maxMessage+100 || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("%d kms errors: %q", n, err)
		}
	})
}
