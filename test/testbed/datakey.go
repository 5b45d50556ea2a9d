package testbed

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

// ReadToken lets cryptsetup export the token of a disk image.
func ReadToken(t testing.TB, image string) map[string]any {
	t.Helper()
	out := Succeed(t, "cryptsetup", "token", "export", "--token-id", "0", image)
	var m map[string]any
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatalf("token: %v\n%s", err, out)
	}
	return m
}

// DK asks the KMS for a disk's data key as the disk service does: with the
// token's wrapped key, and bound to disk and project.
func (d *Daemon) DK(name string) []byte {
	d.T.Helper()
	token := ReadToken(d.T, d.Image(name))
	field := func(name string) string {
		s, ok := token[name].(string)
		if !ok {
			d.T.Fatalf("the token has no %q: %v", name, token)
		}
		return s
	}
	wrapped, err := base64.StdEncoding.DecodeString(field("wrapped_dk"))
	if err != nil {
		d.T.Fatalf("wrapped_dk: %v", err)
	}
	project := field("project")
	request, err := json.Marshal(map[string]string{
		"key_id":                        field("key_id"),
		"cipher_text":                   hex.EncodeToString(wrapped),
		"datakey_cipher_length":         "64",
		"additional_authenticated_data": "sealdisk:v1:" + project + ":" + field("disk_id"),
	})
	if err != nil {
		d.T.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.Run, "kms.sock"))
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest("POST", "http://kms/v1.0/"+project+"/kms/decrypt-datakey", bytes.NewReader(request))
	if err != nil {
		d.T.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Sealdisk-Principal", "evs")
	resp, err := client.Do(req)
	if err != nil {
		d.T.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		d.T.Fatalf("decrypt-datakey: %s %s %v", resp.Status, body, err)
	}
	var reply struct {
		DataKey string `json:"data_key"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		d.T.Fatal(err)
	}
	dk, err := hex.DecodeString(reply.DataKey)
	if err != nil || len(dk) != 64 {
		d.T.Fatalf("data_key has %d bytes: %v", len(dk), err)
	}
	return dk
}
