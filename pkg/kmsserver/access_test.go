package kmsserver_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms/dew"
	"sealdisk/pkg/kmsserver"
)

const (
	stranger = 65534
	diskAAD  = "sealdisk:v1:default:d1"
)

var asEVS = map[string]string{api.HeaderPrincipal: api.PrincipalEVS}

func post(op, body string) ask {
	return ask{Method: "POST", Path: "/v1.0/default/kms/" + op, Body: body}
}

func with(a ask, header map[string]string) ask {
	a.Header = header
	return a
}

// access is one line of the table of who may do what.
type access struct {
	name                 string
	ask                  ask
	admin, evs, stranger string // error codes; "" is success
}

// table is for a KMS with an agency, the key "k", and wrapped keys of the
// disk service and of the administrator.
func table(disk, own string) []access {
	const no, noKey = api.CodeKMSDeniedAPI, api.CodeKMSDeniedKey
	datakey := func(op, aad string) ask {
		return post(op, fmt.Sprintf(`{"key_id":"k","datakey_length":"512","additional_authenticated_data":%q}`, aad))
	}
	unwrap := func(c, aad string) ask {
		return post("decrypt-datakey", fmt.Sprintf(`{"key_id":"k","cipher_text":%q,"datakey_cipher_length":"64","additional_authenticated_data":%q}`, c, aad))
	}
	agency := func(method string) ask { return ask{Method: method, Path: "/sealdisk/v1/default/agency"} }
	return []access{
		{"describe", post("describe-key", `{"key_id":"k"}`), "", "", ""},
		{"list", post("list-keys", `{}`), "", no, ""},
		{"create", post("create-key", `{"key_alias":"new"}`), "", no, no},
		{"disable", post("disable-key", `{"key_id":"toggle"}`), "", no, no},
		{"enable", post("enable-key", `{"key_id":"toggle"}`), "", no, no},
		{"data key of one's own", datakey("create-datakey-without-plaintext", "mine"), "", noKey, no},
		{"data key of a disk", datakey("create-datakey-without-plaintext", diskAAD), noKey, "", no},
		{"plain data key of one's own", datakey("create-datakey", "mine"), "", no, no},
		{"plain data key of a disk", datakey("create-datakey", diskAAD), noKey, no, no},
		{"unwrap one's own", unwrap(own, "mine"), "", noKey, no},
		{"unwrap a disk's", unwrap(disk, diskAAD), noKey, "", no},
		{"unwrap a disk's as one's own", unwrap(disk, "mine"), api.CodeKMSVerification, noKey, no},
		{"show the agency", agency("GET"), "", no, ""},
		{"grant the agency", agency("POST"), "", no, no},
		{"status", ask{Method: "GET", Path: "/sealdisk/v1/status"}, "", no, ""},
		{"backup", ask{Method: "POST", Path: "/sealdisk/v1/backup", Body: "{}"}, api.CodeKMSParameter, no, no},
		{"revoke the agency", agency("DELETE"), "", no, no},
	}
}

// openToAll makes the socket reachable for everybody and prepares what table needs.
func openToAll(t *testing.T, service uint32) *instance {
	t.Helper()
	dir := tempDir(t)
	in := start(t, dir, func(c *kmsserver.Config) {
		c.Policy.ServiceUID = service
		if os.Geteuid() == 0 {
			c.SocketGID = stranger
		}
	})
	for _, d := range []string{dir, filepath.Dir(in.socket)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	admin := dew.NewClient(in.socket)
	defer admin.Close()
	if _, err := admin.GrantAgency(t.Context(), project); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"k", "toggle"} {
		if _, err := admin.CreateKey(t.Context(), project, name, ""); err != nil {
			t.Fatal(err)
		}
	}
	return in
}

func wrappedBy(t *testing.T, a answer) string {
	t.Helper()
	if a.Status != http.StatusOK {
		t.Fatalf("making a data key: %+v", a)
	}
	return field(t, a.Body, "cipher_text")
}

func TestWhoMayDoWhat(t *testing.T) {
	own := uint32(os.Geteuid())
	in := openToAll(t, own)
	newKey := func(h map[string]string, aad string) string {
		return wrappedBy(t, do(in.socket, with(post("create-datakey-without-plaintext",
			fmt.Sprintf(`{"key_id":"k","datakey_length":"512","additional_authenticated_data":%q}`, aad)), h)))
	}
	rows := table(newKey(asEVS, diskAAD), newKey(nil, "mine"))
	check := func(who string, row access, got answer, want string) {
		t.Helper()
		if got.Err != "" || got.Code != want || (want == "") != (got.Status == http.StatusOK) {
			t.Errorf("%s as %s: status %d, code %q (%s)%s, want %q", row.name, who, got.Status, got.Code, got.Msg, got.Err, want)
		}
	}
	if own == 0 {
		asks := []ask{}
		for _, row := range rows {
			asks = append(asks, row.ask, with(row.ask, asEVS))
		}
		answers := doAs(t, stranger, in.socket, asks)
		for i, row := range rows {
			check("a stranger", row, answers[2*i], row.stranger)
			check("a stranger who says to be EVS", row, answers[2*i+1], api.CodeKMSDeniedAPI)
		}
	} else {
		t.Log("not root: TestRoles alone covers other uids")
	}
	for _, row := range rows {
		check("EVS", row, do(in.socket, with(row.ask, asEVS)), row.evs)
	}
	for _, row := range rows {
		check("administrator", row, do(in.socket, row.ask), row.admin)
	}
	for _, principal := range []string{"EVS", "admin", "", "evs,evs"} {
		got := do(in.socket, with(post("describe-key", `{"key_id":"k"}`), map[string]string{api.HeaderPrincipal: principal}))
		if got.Code != api.CodeKMSDeniedAPI {
			t.Errorf("principal %q: %+v", principal, got)
		}
	}
}

// With a service of another uid, root administers and yet cannot act for it.
func TestServiceOfItsOwn(t *testing.T) {
	service := uint32(stranger)
	if os.Geteuid() == stranger {
		service--
	}
	in := openToAll(t, service)
	q := with(post("create-datakey-without-plaintext", fmt.Sprintf(`{"key_id":"k","additional_authenticated_data":%q}`, diskAAD)), asEVS)
	if got := do(in.socket, q); got.Code != api.CodeKMSDeniedAPI {
		t.Errorf("administrator as EVS: %+v", got)
	}
	if os.Geteuid() != 0 {
		return // TestRoles covers the other side
	}
	got := doAs(t, service, in.socket, []ask{q, with(q, nil), post("create-key", `{"key_alias":"x"}`)})
	if got[0].Status != http.StatusOK || got[1].Code != api.CodeKMSDeniedAPI || got[2].Code != api.CodeKMSDeniedAPI {
		t.Errorf("the service: %+v", got)
	}
}
