package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// lockedBuffer may be written to while a command runs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// vault is a KMS that `sealdisk kms serve` runs, and its user.
type vault struct {
	t        *testing.T
	dir      string
	log      lockedBuffer
	stop     func() int // ends the KMS and returns its exit code
	terminal *os.File   // standard input of the commands, if set
}

func newVault(t *testing.T, flags ...string) *vault {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	v := &vault{t: t, dir: dir}
	v.serve(flags...)
	return v
}

// serve starts the KMS and waits until it is ready.
func (v *vault) serve(flags ...string) {
	v.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan int, 1)
	a := &App{In: strings.NewReader(""), Out: &v.log, Err: &v.log, Deps: Deps{Ready: func() error { close(ready); return nil }}}
	go func() { done <- Run(ctx, append([]string{"kms", "serve", "--state-dir", v.dir}, flags...), a) }()
	select {
	case <-ready:
	case code := <-done:
		v.t.Fatalf("kms serve ended with %d: %s", code, &v.log)
	}
	v.stop = sync.OnceValue(func() int { cancel(); return <-done })
	v.t.Cleanup(func() { v.stop() })
}

// run runs a command and wants its exit code.
func (v *vault) run(code int, args ...string) (out, errs string) {
	v.t.Helper()
	var o, e bytes.Buffer
	a := &App{In: strings.NewReader("y\n"), Out: &o, Err: &e}
	if v.terminal != nil {
		a.In = v.terminal
	}
	if got := Run(v.t.Context(), append([]string{"--state-dir", v.dir}, args...), a); got != code {
		v.t.Errorf("%v: exit code %d, want %d: %s%s", args, got, code, &o, &e)
	}
	return o.String(), e.String()
}

func TestKeysFromTheCommandLine(t *testing.T) {
	v := newVault(t)
	out, _ := v.run(0, "agency", "show", "-o", "json")
	wantIn(t, out, `"granted": false`)
	out, _ = v.run(0, "agency", "grant")
	wantIn(t, out, "granted", "yes", "uid ")
	out, _ = v.run(0, "key", "create", "payroll", "--description", "disks of payroll")
	wantIn(t, out, "payroll", "enabled", "disks of payroll")
	var keys []keyView
	out, _ = v.run(0, "key", "list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys) != 2 || keys[0].Name != "evs/default" || !keys[0].Default || keys[1].Name != "payroll" {
		t.Fatalf("%v: %s", err, out)
	}
	out, _ = v.run(0, "key", "list")
	wantIn(t, out, "NAME", "STATE", "payroll", keys[1].ID)

	_, errs := v.run(2, "key", "disable", "payroll")
	wantIn(t, errs, "cannot be attached", "hint: repeat the command with --yes")
	_, errs = v.run(0, "key", "disable", "payroll", "--yes")
	wantIn(t, errs, "cannot be attached", "is disabled")
	out, _ = v.run(0, "key", "show", keys[1].ID)
	wantIn(t, out, "disabled", keys[1].ID)
	_, errs = v.run(4, "key", "disable", "payroll", "--yes")
	wantIn(t, errs, "error: ", "KMS.1301")
	_, _ = v.run(0, "key", "enable", "payroll")
	_, errs = v.run(4, "key", "enable", "payroll")
	wantIn(t, errs, "KMS.1201")
	_, errs = v.run(4, "key", "disable", "evs/default", "--yes")
	wantIn(t, errs, "KMS.0211")
	if strings.Contains(errs, "Until key") {
		t.Errorf("consequences of what is refused: %q", errs)
	}

	for _, tt := range []struct {
		code int
		args []string
		want string
	}{
		{3, []string{"key", "show", "missing"}, "hint: see: sealdisk key list"},
		{3, []string{"key", "enable", "missing"}, "KMS.0207"},
		{3, []string{"key", "show", "a b"}, "KMS.0205"},
		{2, []string{"key", "create", "a b"}, "KMS.1101"},
		{2, []string{"key", "create", "evs/default"}, "KMS.1101"},
		{4, []string{"key", "create", "payroll"}, "KMS.1104"},
		{2, []string{"key", "create", "x", "--description", strings.Repeat("ä", 256)}, "KMS.1103"},
		{2, []string{"key", "create"}, "error: "},
		{2, []string{"key", "frobnicate"}, "unknown command"},
	} {
		_, errs := v.run(tt.code, tt.args...)
		wantIn(t, errs, tt.want)
	}

	_, errs = v.run(2, "agency", "revoke")
	wantIn(t, errs, "--yes", "can be made or attached")
	_, _ = v.run(0, "agency", "revoke", "--yes")
	_, _ = v.run(5, "agency", "revoke", "--yes")
	out, _ = v.run(0, "--project", "other", "agency", "show")
	wantIn(t, out, "other", "no")
	out, _ = v.run(0, "__complete", "key", "show", "")
	wantIn(t, out, "payroll", "evs/default")
}

func TestKMSAwayIsExitCode7(t *testing.T) {
	v := newVault(t)
	if code := v.stop(); code != 0 {
		t.Errorf("kms serve ended with %d: %s", code, &v.log)
	}
	for _, args := range [][]string{{"key", "list"}, {"agency", "grant"}, {"kms", "backup", v.dir + "/b"}} {
		_, errs := v.run(7, args...)
		wantIn(t, errs, "error: ", "hint: ", "sealdisk serve")
	}
}

// secretFile makes a passphrase file.
func secretFile(t *testing.T, words string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(p, []byte(words+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBackupAndRestoreFromTheCommandLine(t *testing.T) {
	v := newVault(t)
	_, _ = v.run(0, "key", "create", "k")
	file := filepath.Join(v.dir, "kms.backup")
	pass := secretFile(t, "correct horse", 0o600)

	_, errs := v.run(5, "kms", "backup", file, "--passphrase-file", secretFile(t, "x", 0o644))
	wantIn(t, errs, "hint: chmod 0600")
	_, errs = v.run(2, "kms", "backup", file)
	wantIn(t, errs, "--passphrase-file")
	_, errs = v.run(2, "kms", "backup", filepath.Join(v.dir, "no", "directory"), "--passphrase-file", pass)
	wantIn(t, errs, "no such file")
	out, errs := v.run(0, "kms", "backup", file, "--passphrase-file", pass)
	wantIn(t, out, file, "root key")
	wantIn(t, errs, "read back")
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	_, errs = v.run(4, "kms", "backup", file, "--passphrase-file", pass)
	wantIn(t, errs, "not replaced")
	if left, err := filepath.Glob(v.dir + "/.kms*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	_, errs = v.run(4, "kms", "restore", file, "--passphrase-file", pass)
	wantIn(t, errs, "not empty", "hint: ")
	v.stop()
	v.dir = filepath.Join(v.dir, "elsewhere")
	_, errs = v.run(5, "kms", "restore", file, "--passphrase-file", secretFile(t, "wrong", 0o600))
	wantIn(t, errs, "wrong passphrase")
	_, errs = v.run(2, "kms", "restore", file+"x", "--passphrase-file", pass)
	wantIn(t, errs, "no such file")
	damaged := filepath.Join(t.TempDir(), "damaged")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs = v.run(10, "kms", "restore", damaged, "--passphrase-file", pass)
	wantIn(t, errs, "damaged", "hint: ")
	out, errs = v.run(0, "kms", "restore", file, "--passphrase-file", pass, "-o", "json")
	wantIn(t, out, `"directory"`)
	wantIn(t, errs, "stolen host")
	v.serve()
	out, _ = v.run(0, "key", "show", "k")
	wantIn(t, out, "enabled")
}

func TestKMSFlags(t *testing.T) {
	pass := secretFile(t, "root words", 0o600)
	v := newVault(t, "--passphrase-file", pass)
	_, _ = v.run(0, "key", "create", "k")
	v.stop()
	for _, tt := range []struct {
		code  int
		flags []string
		want  string
	}{
		{10, []string{"--passphrase-file", secretFile(t, "other words", 0o600)}, "wrong passphrase"},
		{3, nil, "--passphrase-file"},
		{2, []string{"--ask-passphrase"}, "not a terminal"},
		{2, []string{"--passphrase-fd", "99"}, ""},
		{2, []string{"--log-level", "loud"}, "bad log level"},
		{2, []string{"--socket-group", "no-such-group-here"}, "socket group"},
		{2, []string{"--passphrase-file", pass, "--root-key-credential", "x"}, "passphrase-file"},
		{2, []string{"--service-uid", "99999999999"}, "no uid"},
	} {
		_, errs := v.run(tt.code, append([]string{"kms", "serve"}, tt.flags...)...)
		wantIn(t, errs, tt.want)
		if strings.Contains(errs, "words\"") {
			t.Errorf("a passphrase in %q", errs)
		}
	}
	v.serve("--passphrase-file", pass, "--service-uid", fmt.Sprint(os.Geteuid()), "--admin-uid", "12345")
	_, _ = v.run(0, "key", "show", "k")
	if strings.Contains(v.log.String(), "root words") {
		t.Error("the passphrase is in the log")
	}
}

// pty returns the two ends of a terminal.
func pty(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

func TestPassphraseIsAskedForTwice(t *testing.T) {
	for _, tt := range []struct {
		name, typed string
		code        int
		want        string
	}{
		{"the same", "correct horse\ncorrect horse\n", 0, "read back"},
		{"another", "correct horse\ncorrect horsf\n", 2, "differ"},
		{"empty", "\n", 2, "from 1 to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVault(t)
			user, program := pty(t)
			v.terminal = program
			if _, err := user.WriteString(tt.typed); err != nil {
				t.Fatal(err)
			}
			out, errs := v.run(tt.code, "kms", "backup", filepath.Join(v.dir, "b"))
			wantIn(t, errs, "Passphrase of the backup: ", tt.want)
			if strings.Contains(out+errs, "horse") {
				t.Errorf("the passphrase was shown: %q", errs)
			}
		})
	}
}
