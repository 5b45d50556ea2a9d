package kmsserver_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/dew"
)

// spellings are the ways in which key bytes could show up.
func spellings(name string, b []byte) map[string][]byte {
	return map[string][]byte{
		name:                         b,
		name + " in hexadecimal":     []byte(hex.EncodeToString(b)),
		name + " in HEXADECIMAL":     []byte(strings.ToUpper(hex.EncodeToString(b))),
		name + " in base64":          []byte(base64.StdEncoding.EncodeToString(b)[:len(b)/3*4]),
		name + " as a list of bytes": []byte(strings.Trim(fmt.Sprint(b[:8]), "[]")),
	}
}

// rootKeyOf reads the root key file of a state directory.
func rootKeyOf(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "kms", "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	_, digits, _ := strings.Cut(strings.TrimSpace(string(b)), ":")
	key, err := hex.DecodeString(digits)
	if err != nil || len(key) != 32 {
		t.Fatalf("root key: %v", err)
	}
	return key
}

// use makes and unwraps data keys, provokes errors, and returns the data keys.
func use(t *testing.T, socket string) (dks [][]byte) {
	t.Helper()
	admin, evs := dew.NewClient(socket), dew.New(socket)
	defer admin.Close()
	if _, err := admin.GrantAgency(t.Context(), project); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		w, err := evs.NewWrapped(t.Context(), project, "evs/default", diskAAD)
		if err != nil {
			t.Fatal(err)
		}
		dk := make([]byte, kms.DKSize)
		if err := evs.Unwrap(t.Context(), project, w, diskAAD, dk); err != nil {
			t.Fatal(err)
		}
		dks = append(dks, dk)
		if err := evs.Unwrap(t.Context(), project, w, diskAAD+"x", make([]byte, kms.DKSize)); err == nil {
			t.Fatal("unwrapped for another disk")
		}
		got := do(socket, post("create-datakey", `{"key_id":"evs/default","datakey_length":"512"}`))
		own, err := hex.DecodeString(field(t, got.Body, "plain_text"))
		if err != nil || len(own) != 64 {
			t.Fatalf("%v: %+v", err, got.Status)
		}
		dks = append(dks, own)
	}
	return dks
}

func TestLogsHoldNoKey(t *testing.T) {
	dir := tempDir(t)
	p := spawn(t, dir)
	dks := use(t, p.socket)
	root := rootKeyOf(t, dir)
	p.end(syscall.SIGTERM)
	out := p.output.Bytes()
	if !bytes.Contains(out, []byte("decrypt-datakey")) || !bytes.Contains(out, []byte("backup")) {
		t.Fatalf("the log does not tell what was done: %s", out)
	}
	for i, key := range append(dks, root) {
		for name, b := range spellings(fmt.Sprintf("key %d", i), key) {
			if bytes.Contains(out, b[:min(len(b), 16)]) {
				t.Errorf("the log holds %s", name)
			}
		}
	}
	store, err := os.ReadFile(filepath.Join(dir, "kms", "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range spellings("root key", root) {
		if bytes.Contains(store, b[:16]) {
			t.Errorf("the store holds the %s", name)
		}
	}
}

// After the replies are sent, the KMS's memory holds no data key any more,
// neither in net/http's buffers nor elsewhere. It takes root to read it.
func TestMemoryHoldsNoDataKey(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: another process's memory cannot be read")
		return
	}
	dir := tempDir(t)
	p := spawn(t, dir)
	dks := use(t, p.socket)
	root := rootKeyOf(t, dir)

	foundRoot := false
	for _, m := range memory(t, p.cmd.Process.Pid) {
		foundRoot = foundRoot || bytes.Contains(m.b, root)
		for i, dk := range dks {
			for name, b := range spellings(fmt.Sprintf("data key %d", i), dk) {
				if at := bytes.Index(m.b, b[:16]); at >= 0 {
					t.Errorf("%s is in %s at %d", name, m.name, at)
				}
			}
		}
	}
	if !foundRoot {
		t.Error("the scan does not even find the root key, which must be there")
	}
}

type region struct {
	name string
	b    []byte
}

// memory reads what of pid's memory can be read and written.
func memory(t *testing.T, pid int) (all []region) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var perms string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); err != nil || !strings.HasPrefix(perms, "rw") || to-from > 1<<28 {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, int64(from)) // some regions cannot be read to their end
		all = append(all, region{strings.TrimSpace(line), b[:n]})
	}
	return all
}

// Where not all memory can be locked the KMS says so, or refuses to run.
func TestMemoryThatCannotBeLocked(t *testing.T) {
	dir := tempDir(t)
	exe := binaryIn(t, dir)
	asUser := func(env string) *process {
		p := command(exe, dir, memlockEnv+"="+env)
		if os.Geteuid() == 0 { // root may lock whatever the limit says
			if err := os.Chown(dir, stranger, stranger); err != nil {
				t.Fatal(err)
			}
			p.cmd.Dir = dir
			p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: stranger, Gid: stranger}
		}
		return p
	}
	p := asUser("required")
	if err := p.cmd.Run(); err == nil || !strings.Contains(p.output.String(), "--require-locked") || !strings.Contains(p.output.String(), "RLIMIT_MEMLOCK") {
		t.Errorf("required: %v: %s", err, p.output)
	}
	p = asUser("little")
	p.start(t)
	st, err := dew.NewClient(p.socket).Status(t.Context())
	if err != nil || st.MemoryLocked {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := dew.NewClient(p.socket).CreateKey(t.Context(), project, "k", ""); err != nil {
		t.Errorf("with little memory: %v", err)
	}
	p.end(syscall.SIGTERM)
	if !strings.Contains(p.output.String(), "not all memory of the KMS is locked") {
		t.Errorf("the log does not say it: %s", p.output)
	}
}

func TestRefusalsAreLogged(t *testing.T) {
	in := start(t, tempDir(t))
	do(in.socket, post("create-key", `{"key_alias":"k"}`))
	do(in.socket, with(post("create-key", `{"key_alias":"k2"}`), asEVS))
	do(in.socket, post("decrypt-datakey", `{"key_id":"k","cipher_text":"00","datakey_cipher_length":"64"}`))
	for _, code := range []string{api.CodeKMSDeniedAPI, api.CodeKMSVerification} {
		n := 0
		for _, e := range in.logs.FilterMessage("refused").All() {
			if m := e.ContextMap(); m["reason"] == code && m["uid"] == uint32(os.Geteuid()) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s was logged %d times", code, n)
		}
	}
}
