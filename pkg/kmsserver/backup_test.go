package kmsserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/dew"
	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/kmsserver"
	"sealdisk/pkg/secmem"
)

// quickKDF costs nothing.
func quickKDF() keystore.KDF {
	return keystore.NewKDF(keystore.KDF{Time: 1, Memory: 64, Threads: 1})
}

func backupRequest(k keystore.KDF) api.BackupRequest {
	return api.BackupRequest{Salt: hex.EncodeToString(k.Salt), Time: k.Time, Memory: k.Memory, Threads: k.Threads}
}

func derive(t *testing.T, k keystore.KDF, pass string) []byte {
	t.Helper()
	b, err := k.Derive([]byte(pass))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Destroy()
	return bytes.Clone(b.Bytes())
}

// A running KMS is backed up, its machine is lost, and on another, empty one
// the disks' data keys come back.
func TestBackupAndRestoreOnAnEmptyDirectory(t *testing.T) {
	lost := tempDir(t)
	in := start(t, lost)
	admin, evs := dew.NewClient(in.socket), dew.New(in.socket)
	if _, err := admin.GrantAgency(t.Context(), project); err != nil {
		t.Fatal(err)
	}
	w, err := evs.NewWrapped(t.Context(), project, api.DefaultKeyAlias, diskAAD)
	if err != nil {
		t.Fatal(err)
	}
	dk, again := make([]byte, kms.DKSize), make([]byte, kms.DKSize)
	if err := evs.Unwrap(t.Context(), project, w, diskAAD, dk); err != nil {
		t.Fatal(err)
	}
	kdf := quickKDF()
	var file bytes.Buffer
	if err := admin.Backup(t.Context(), backupRequest(kdf), derive(t, kdf, "words"), &file); err != nil {
		t.Fatal(err)
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(lost); err != nil {
		t.Fatal(err)
	}

	found := tempDir(t)
	_, err = keystore.Restore(&file, func(k keystore.KDF) (*secmem.Buffer, error) { return k.Derive([]byte("words")) }, kmsserver.StoreDir(found))
	if err != nil {
		t.Fatal(err)
	}
	in = start(t, found)
	evs = dew.New(in.socket)
	if err := evs.Unwrap(t.Context(), project, w, diskAAD, again); err != nil || !bytes.Equal(dk, again) {
		t.Errorf("after the restore: %v", err)
	}
	for _, e := range in.logs.All() {
		if strings.Contains(e.Message, "new key store") {
			t.Error("a restored store is taken for a new one")
		}
	}
}

func TestBackupRequestsAreChecked(t *testing.T) {
	in := start(t, tempDir(t))
	kdf := quickKDF()
	key := strings.Repeat("ab", 32)
	salt := hex.EncodeToString(kdf.Salt)
	for _, tt := range []struct{ name, body, code string }{
		{"no JSON", `{`, api.CodeKMSJSON},
		{"no key", fmt.Sprintf(`{"salt":%q,"time":1,"memory":64,"threads":1}`, salt), api.CodeKMSParameter},
		{"short key", fmt.Sprintf(`{"salt":%q,"time":1,"memory":64,"threads":1,"key":%q}`, salt, key[2:]), api.CodeKMSParameter},
		{"long key", fmt.Sprintf(`{"salt":%q,"time":1,"memory":64,"threads":1,"key":%q}`, salt, key+"00"), api.CodeKMSJSON},
		{"short salt", fmt.Sprintf(`{"salt":"00","time":1,"memory":64,"threads":1,"key":%q}`, key), api.CodeKMSParameter},
		{"odd salt", fmt.Sprintf(`{"salt":"0","time":1,"memory":64,"threads":1,"key":%q}`, key), api.CodeKMSParameter},
		{"terabytes", fmt.Sprintf(`{"salt":%q,"time":1,"memory":4000000000,"threads":1,"key":%q}`, salt, key), api.CodeKMSParameter},
		{"256 lanes", fmt.Sprintf(`{"salt":%q,"time":1,"memory":64,"threads":256,"key":%q}`, salt, key), api.CodeKMSJSON},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := do(in.socket, ask{Method: "POST", Path: "/sealdisk/v1/backup", Body: tt.body})
			if got.Code != tt.code || strings.Contains(got.Body, key[:8]) {
				t.Errorf("%+v", got)
			}
		})
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestBackupThatEndsEarlyIsAnError(t *testing.T) {
	in := start(t, tempDir(t))
	kdf := quickKDF()
	admin := dew.NewClient(in.socket)
	if err := admin.Backup(t.Context(), backupRequest(kdf), make([]byte, 32), fullDisk{}); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("a full disk: %v", err)
	}
	cut := filepath.Join(tempDir(t), "s")
	l, err := net.Listen("unix", cut)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // a KMS that dies in the middle
		c, err := l.Accept()
		if err != nil {
			return
		}
		if q, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.Copy(io.Discard, q.Body)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nSEALD\r\n")
		c.Close()
	}()
	if err := dew.NewClient(cut).Backup(t.Context(), backupRequest(kdf), make([]byte, 32), io.Discard); err == nil {
		t.Error("half a backup is taken for whole")
	}
	if err := dew.NewClient(cut+"x").Backup(t.Context(), backupRequest(kdf), make([]byte, 32), io.Discard); !errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("no KMS: %v", err)
	}
}

// A client that takes nothing of its backup holds up nobody.
func TestStalledBackupHoldsUpNobody(t *testing.T) {
	in := start(t, tempDir(t))
	admin := dew.NewClient(in.socket)
	for i := range 100 {
		if _, err := admin.CreateKey(t.Context(), project, fmt.Sprintf("k%d", i), strings.Repeat("ä", 255)); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.Dial("unix", in.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kdf := quickKDF()
	body := fmt.Sprintf(`{"salt":"%x","time":1,"memory":64,"threads":1,"key":"%x"}`, kdf.Salt, make([]byte, 32))
	fmt.Fprintf(conn, "POST /sealdisk/v1/backup HTTP/1.1\r\nHost: k\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
		t.Fatal(err) // now the backup has begun
	}
	for i := range 50 { // enough for the store to grow
		if _, err := admin.CreateKey(t.Context(), project, fmt.Sprintf("later%d", i), strings.Repeat("ä", 255)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.ListKeys(t.Context(), project); err != nil {
		t.Fatal(err)
	}
	if err := in.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func TestSecondKMSAndShutdown(t *testing.T) {
	dir := tempDir(t)
	in := start(t, dir)
	for name, socket := range map[string]string{"the same socket": in.socket, "another socket": in.socket + "2"} {
		err := kmsserver.Serve(context.Background(), kmsserver.Config{StateDir: dir, Socket: socket, Policy: kmsserver.DefaultPolicy()}, nop)
		if !errors.Is(err, keystore.ErrLocked) || api.ClassOf(err) != api.ClassConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := tempDir(t)
	err := kmsserver.Serve(context.Background(), kmsserver.Config{StateDir: other, Socket: in.socket, Policy: kmsserver.DefaultPolicy()}, nop)
	if api.ClassOf(err) != api.ClassConflict {
		t.Errorf("another store on a live socket: %v", err)
	}
	if got := do(in.socket, ask{Method: "GET", Path: "/sealdisk/v1/status"}); got.Status != http.StatusOK {
		t.Errorf("the first KMS suffered: %+v", got)
	}

	// A request that has begun is finished.
	conn, err := net.Dial("unix", in.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1.0/default/kms/create-key HTTP/1.1\r\nHost: k\r\nContent-Length: 22\r\nExpect: 100-continue\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))); err != nil {
		t.Fatal(err) // now it is being handled
	}
	stopped := make(chan error)
	go func() { stopped <- in.stop() }()
	for { // until nobody listens any more
		c, err := net.Dial("unix", in.socket)
		if err != nil {
			break
		}
		c.Close()
	}
	fmt.Fprint(conn, `{"key_alias":"last"}  `)
	b, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(b), "200 OK") {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(in.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	in = start(t, dir)
	if got := do(in.socket, post("describe-key", `{"key_id":"last"}`)); got.Status != http.StatusOK {
		t.Errorf("the last key: %+v", got)
	}
}

func TestFirstStartSaysWhatMatters(t *testing.T) {
	dir := tempDir(t)
	count := func(in *instance) (backup, stolen int) {
		for _, e := range in.logs.All() {
			if strings.Contains(e.Message, "sealdisk kms backup") {
				backup++
			}
			if strings.Contains(e.Message, "stolen host") {
				stolen++
			}
		}
		return backup, stolen
	}
	in := start(t, dir)
	if b, s := count(in); b != 1 || s != 1 {
		t.Errorf("first start: %d times backup, %d times the stolen host", b, s)
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	if b, s := count(start(t, dir)); b != 0 || s != 0 {
		t.Errorf("second start: %d times backup, %d times the stolen host", b, s)
	}
}

func TestStatusTellsNoSecret(t *testing.T) {
	dir := tempDir(t)
	in := start(t, dir)
	use(t, in.socket)
	admin := dew.NewClient(in.socket)
	st, err := admin.Status(t.Context())
	if err != nil || st.Keys != 1 || st.Agencies != 1 || st.RootKey != "file" || st.PID != os.Getpid() || st.StoreID == "" {
		t.Errorf("%+v, %v", st, err)
	}
	got := do(in.socket, ask{Method: "GET", Path: "/sealdisk/v1/status"})
	for name, b := range spellings("root key", rootKeyOf(t, dir)) {
		if strings.Contains(got.Body, string(b[:12])) {
			t.Errorf("status tells the %s", name)
		}
	}
}
