package kmsserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms/dew"
)

// field reads a string from a JSON object.
func field(t *testing.T, body, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	s, ok := m[name].(string)
	if !ok {
		t.Fatalf("no %s in %s", name, body)
	}
	return s
}

func TestBadRequestsGetTheirCodes(t *testing.T) {
	in := start(t, tempDir(t))
	if got := do(in.socket, post("create-key", `{"key_alias":"k"}`)); got.Status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	long := func(n int) string { return strings.Repeat("a", n) }
	tests := []struct {
		name   string
		ask    ask
		status int
		code   string
	}{
		{"unknown path", ask{Method: "GET", Path: "/v1.0/default/kms/nothing"}, 404, api.CodeKMSURL},
		{"root", ask{Method: "GET", Path: "/"}, 404, api.CodeKMSURL},
		{"wrong method", ask{Method: "GET", Path: "/v1.0/default/kms/create-key"}, 405, api.CodeKMSURL},
		{"wrong method on agency", ask{Method: "PUT", Path: "/sealdisk/v1/default/agency"}, 405, api.CodeKMSURL},
		{"no JSON", post("create-key", `{`), 400, api.CodeKMSJSON},
		{"empty body", post("create-key", ``), 400, api.CodeKMSJSON},
		{"words after the JSON", post("create-key", `{"key_alias":"x"} {}`), 400, api.CodeKMSJSON},
		{"wrong type", post("create-key", `{"key_alias":5}`), 400, api.CodeKMSJSON},
		{"array", post("create-key", `[]`), 400, api.CodeKMSJSON},
		{"too long", post("create-key", `{"key_alias":"x"}`+strings.Repeat(" ", 5000)), 400, api.CodeKMSTooLong},
		{"form", with(post("create-key", `a=b`), map[string]string{"Content-Type": "application/x-www-form-urlencoded"}), 415, api.CodeKMSParameter},
		{"no alias", post("create-key", `{}`), 400, api.CodeKMSMissing},
		{"bad alias", post("create-key", `{"key_alias":"a b"}`), 400, api.CodeKMSAlias},
		{"reserved alias", post("create-key", `{"key_alias":"evs/default"}`), 400, api.CodeKMSAlias},
		{"taken alias", post("create-key", `{"key_alias":"k"}`), 400, api.CodeKMSAliasTaken},
		{"long description", post("create-key", fmt.Sprintf(`{"key_alias":"d","key_description":%q}`, long(256))), 400, api.CodeKMSDescription},
		{"RSA", post("create-key", `{"key_alias":"r","key_spec":"RSA_2048"}`), 400, api.CodeKMSParameter},
		{"imported", post("create-key", `{"key_alias":"r","origin":"external"}`), 400, api.CodeKMSParameter},
		{"signing", post("create-key", `{"key_alias":"r","key_usage":"SIGN_VERIFY"}`), 400, api.CodeKMSParameter},
		{"bad project", ask{Method: "POST", Path: "/v1.0/a%20b/kms/create-key", Body: `{"key_alias":"x"}`}, 400, api.CodeKMSParameter},
		{"describe nothing", post("describe-key", `{}`), 400, api.CodeKMSMissing},
		{"describe no key", post("describe-key", `{"key_id":"missing"}`), 404, api.CodeKMSNotFound},
		{"describe no possible key", post("describe-key", `{"key_id":"a b"}`), 400, api.CodeKMSKeyID},
		{"enable an enabled key", post("enable-key", `{"key_id":"k"}`), 400, api.CodeKMSNotDisabled},
		{"list, limit 0", post("list-keys", `{"limit":"0"}`), 400, api.CodeKMSLimit},
		{"list, limit in words", post("list-keys", `{"limit":"many"}`), 400, api.CodeKMSLimit},
		{"list, marker below 0", post("list-keys", `{"marker":"-1"}`), 400, api.CodeKMSMarker},
		{"list, state 9", post("list-keys", `{"key_state":"9"}`), 400, api.CodeKMSParameter},
		{"data key of 7 bits", post("create-datakey", `{"key_id":"k","datakey_length":"7"}`), 400, api.CodeKMSDKLength},
		{"data key of 12 bits", post("create-datakey", `{"key_id":"k","datakey_length":"12"}`), 400, api.CodeKMSDKLength},
		{"data key too long", post("create-datakey-without-plaintext", `{"key_id":"k","datakey_length":"8200"}`), 400, api.CodeKMSDKLengthWP},
		{"data key of a kind", post("create-datakey", `{"key_id":"k","key_spec":"SM4"}`), 400, api.CodeKMSParameter},
		{"long additional data", post("create-datakey", fmt.Sprintf(`{"key_id":"k","additional_authenticated_data":%q}`, long(129))), 400, api.CodeKMSParameter},
		{"unwrap without a key", post("decrypt-datakey", `{"cipher_text":"00","datakey_cipher_length":"64"}`), 400, api.CodeKMSMissing},
		{"unwrap nothing", post("decrypt-datakey", `{"key_id":"k","datakey_cipher_length":"64"}`), 400, api.CodeKMSMissing},
		{"unwrap without a length", post("decrypt-datakey", `{"key_id":"k","cipher_text":"00"}`), 400, api.CodeKMSMissing},
		{"unwrap 0 bytes", post("decrypt-datakey", `{"key_id":"k","cipher_text":"00","datakey_cipher_length":"0"}`), 400, api.CodeKMSCipherLength},
		{"unwrap no hexadecimal", post("decrypt-datakey", `{"key_id":"k","cipher_text":"xy","datakey_cipher_length":"64"}`), 400, api.CodeKMSCipherText},
		{"unwrap rubbish", post("decrypt-datakey", `{"key_id":"k","cipher_text":"00ff","datakey_cipher_length":"64"}`), 400, api.CodeKMSVerification},
		{"revoke nothing", ask{Method: "DELETE", Path: "/sealdisk/v1/default/agency"}, 404, api.CodeKMSNoAgency},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := do(in.socket, tt.ask)
			if got.Status != tt.status || got.Code != tt.code || got.Msg == "" {
				t.Errorf("%d %s %q%s, want %d %s", got.Status, got.Code, got.Body, got.Err, tt.status, tt.code)
			}
			if got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("Content-Type %q", got.Header.Get("Content-Type"))
			}
			if got.Status == 405 && got.Header.Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
	for _, e := range in.logs.All() {
		if e.Level >= 2 { // error
			t.Errorf("a bad request was logged as an internal error: %s %v", e.Message, e.ContextMap())
		}
	}
}

// Fields that this KMS does not know are passed over, as DEW's own SDK sends some.
func TestUnknownFieldsAndTypesOfTheSDK(t *testing.T) {
	in := start(t, tempDir(t))
	got := do(in.socket, with(post("create-key", `{"key_alias":"k","sequence":"919c82d4-8046-4722-9094-35c3c6524cff","enterprise_project_id":"0","key_spec":"AES_256"}`),
		map[string]string{"Content-Type": "application/json;charset=UTF-8"}))
	if got.Status != http.StatusOK {
		t.Errorf("%+v", got)
	}
}

func TestKeysAsDEWShowsThem(t *testing.T) {
	in := start(t, tempDir(t))
	admin := dew.NewClient(in.socket)
	id, err := admin.CreateKey(t.Context(), project, "k", "words")
	if err != nil {
		t.Fatal(err)
	}
	got := do(in.socket, post("describe-key", fmt.Sprintf(`{"key_id":%q}`, id)))
	var rsp struct {
		KeyInfo map[string]string `json:"key_info"`
	}
	if err := json.Unmarshal([]byte(got.Body), &rsp); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"key_id": id, "key_alias": "k", "key_description": "words", "key_state": "2", "default_key_flag": "0",
		"key_spec": "AES_256", "key_usage": "ENCRYPT_DECRYPT", "origin": "kms", "key_rotation_enabled": "false", "scheduled_deletion_date": "", "key_version": "1"} {
		if v, ok := rsp.KeyInfo[name]; !ok || v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	if len(rsp.KeyInfo["creation_date"]) != 13 {
		t.Errorf("creation_date %q is not in milliseconds", rsp.KeyInfo["creation_date"])
	}
	if got := do(in.socket, post("disable-key", fmt.Sprintf(`{"key_id":%q}`, id))); !strings.Contains(got.Body, `"key_state":"3"`) {
		t.Errorf("disable: %s", got.Body)
	}
}

func TestListKeysByPages(t *testing.T) {
	in := start(t, tempDir(t))
	admin := dew.NewClient(in.socket)
	names := []string{"a", "b", "c", "d", "e"}
	for _, n := range names {
		if _, err := admin.CreateKey(t.Context(), project, n, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.DisableKey(t.Context(), project, "c"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ body, names, truncated, next string }{
		{``, "abcde", "false", ""},
		{`{}`, "abcde", "false", ""},
		{`{"limit":"2"}`, "ab", "true", "2"},
		{`{"limit":"2","marker":"2"}`, "cd", "true", "4"},
		{`{"limit":"2","marker":"4"}`, "e", "false", ""},
		{`{"marker":"5"}`, "", "false", ""},
		{`{"limit":"5"}`, "abcde", "false", ""},
		{`{"key_state":"3"}`, "c", "false", ""},
		{`{"key_state":"2","limit":"3"}`, "abd", "true", "3"},
	} {
		var rsp api.ListKeysResponse
		got := do(in.socket, post("list-keys", tt.body))
		if err := json.Unmarshal([]byte(got.Body), &rsp); err != nil {
			t.Fatalf("%s: %v", got.Body, err)
		}
		all := ""
		for i, k := range rsp.KeyDetails {
			all += k.KeyAlias
			if rsp.Keys[i] != k.KeyID {
				t.Errorf("%s: keys and key_details differ", tt.body)
			}
		}
		if all != tt.names || rsp.Truncated != tt.truncated || rsp.NextMarker != tt.next {
			t.Errorf("%s: %q, truncated %s, next %q", tt.body, all, rsp.Truncated, rsp.NextMarker)
		}
	}
	if keys, err := admin.ListKeys(t.Context(), project); err != nil || len(keys) != len(names) {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

func TestDefaultKeyCannotBeDisabled(t *testing.T) {
	in := start(t, tempDir(t))
	admin := dew.NewClient(in.socket)
	a, err := admin.GrantAgency(t.Context(), project)
	if err != nil || !a.Granted || a.DefaultKey == "" {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, ref := range []string{a.DefaultKey, api.DefaultKeyAlias} {
		if got := do(in.socket, post("disable-key", fmt.Sprintf(`{"key_id":%q}`, ref))); got.Status != 400 || got.Code != "KMS.0211" {
			t.Errorf("%+v", got)
		}
	}
	if got := do(in.socket, post("describe-key", `{"key_id":"evs/default"}`)); !strings.Contains(got.Body, `"default_key_flag":"1"`) || !strings.Contains(got.Body, `"key_state":"2"`) {
		t.Errorf("%s", got.Body)
	}
}
