package keystore

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
	"sealdisk/pkg/secmem"
)

// hint returns the hint that a user sees with err.
func hint(err error) string {
	var e *api.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Hint
}

func TestRootKeyFileIsMadePrivate(t *testing.T) {
	dir := storeDir(t)
	wantIs(t, open(t, dir, RootSource{}).Close(), nil)
	for _, name := range []string{rootFileName, StoreFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", st.Mode(), err)
	}
	names, err := filepath.Glob(dir + "/.*")
	if err != nil || len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestRootKeyFileThatOthersReachIsRefused(t *testing.T) {
	key := []byte(rootPrefix + strings.Repeat("ab", keySize) + "\n")
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		want string // in the hint
	}{
		{"readable by the group", func(t *testing.T, p string) { write(t, p, key, 0o640) }, "chmod 0600"},
		{"readable by all", func(t *testing.T, p string) { write(t, p, key, 0o644) }, "chmod 0600"},
		{"writable by all", func(t *testing.T, p string) { write(t, p, key, 0o602) }, "chmod 0600"},
		{"symbolic link", func(t *testing.T, p string) {
			write(t, p+".real", key, 0o600)
			wantIs(t, os.Symlink(p+".real", p), nil)
		}, "the file itself"},
		{"directory", func(t *testing.T, p string) { wantIs(t, os.Mkdir(p, 0o700), nil) }, ""},
		{"pipe", func(t *testing.T, p string) { wantIs(t, unix.Mkfifo(p, 0o600), nil) }, ""},
		{"empty", func(t *testing.T, p string) { write(t, p, nil, 0o600) }, "backup"},
		{"too short", func(t *testing.T, p string) { write(t, p, key[:40], 0o600) }, "backup"},
		{"another prefix", func(t *testing.T, p string) { write(t, p, flip(key, 3), 0o600) }, "backup"},
		{"not hexadecimal", func(t *testing.T, p string) { write(t, p, flip(key, len(key)-2), 0o600) }, ""},
		{"no newline but a digit", func(t *testing.T, p string) { write(t, p, append(key[:len(key)-1:len(key)-1], 'a'), 0o600) }, "backup"},
	}
	if os.Geteuid() == 0 {
		tests = append(tests, struct {
			name string
			make func(t *testing.T, path string)
			want string
		}{"another user's", func(t *testing.T, p string) {
			write(t, p, key, 0o600)
			wantIs(t, os.Chown(p, 65534, 65534), nil)
		}, "chown 0"})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := storeDir(t)
			wantIs(t, os.Mkdir(dir, 0o700), nil)
			path := filepath.Join(dir, rootFileName)
			if tt.name == "not hexadecimal" {
				key = []byte(rootPrefix + strings.Repeat("ag", keySize) + "\n")
			}
			tt.make(t, path)
			_, err := Open(Options{Dir: dir})
			wantIs(t, err, ErrRootKeyFile)
			if !strings.Contains(hint(err), tt.want) {
				t.Errorf("hint %q, want %q in it", hint(err), tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "abab") {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}

func write(t *testing.T, path string, b []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryThatOthersEnterIsRefused(t *testing.T) {
	dir := storeDir(t)
	wantIs(t, open(t, dir, RootSource{}).Close(), nil)
	wantIs(t, os.Chmod(dir, 0o755), nil)
	if _, err := Open(Options{Dir: dir}); api.ClassOf(err) != api.ClassDenied || !strings.Contains(hint(err), "chmod 0700") {
		t.Errorf("%v, hint %q", err, hint(err))
	}
	wantIs(t, os.Chmod(dir, 0o700), nil)
	wantIs(t, os.Chmod(filepath.Join(dir, StoreFile), 0o644), nil)
	if _, err := Open(Options{Dir: dir}); api.ClassOf(err) != api.ClassDenied {
		t.Errorf("store readable by all: %v", err)
	}
}

func TestWrongRootKeyIsTold(t *testing.T) {
	dir := storeDir(t)
	wantIs(t, open(t, dir, RootSource{}).Close(), nil)
	path := filepath.Join(dir, rootFileName)

	wantIs(t, os.Rename(path, path+".away"), nil)
	_, err := Open(Options{Dir: dir})
	wantIs(t, err, ErrNoRootKey)
	if !strings.Contains(hint(err), "kms restore") {
		t.Errorf("hint %q", hint(err))
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("a new root key was made for an old store")
	}
	wantIs(t, writeRootFile(path, random(keySize)), nil)
	_, err = Open(Options{Dir: dir})
	wantIs(t, err, ErrWrongRootKey)

	elsewhere := filepath.Join(t.TempDir(), "k")
	wantIs(t, os.Rename(path+".away", elsewhere), nil)
	open(t, dir, RootSource{File: elsewhere})
}

func TestPassphrase(t *testing.T) {
	dir := storeDir(t)
	right := RootSource{Passphrase: passphrase("correct horse"), KDF: quick}
	wantIs(t, open(t, dir, right).Close(), nil)
	if _, err := os.Stat(filepath.Join(dir, rootFileName)); !errors.Is(err, os.ErrNotExist) {
		t.Error("a root key file beside a store with a passphrase")
	}
	_, err := Open(Options{Dir: dir, Root: RootSource{Passphrase: passphrase("correct horsf")}})
	wantIs(t, err, ErrWrongRootKey)
	if !strings.Contains(err.Error(), "wrong passphrase") {
		t.Error(err)
	}
	_, err = Open(Options{Dir: dir})
	wantIs(t, err, ErrNoRootKey)
	if !strings.Contains(hint(err), "--passphrase-file") {
		t.Errorf("hint %q", hint(err))
	}
	cancelled := errors.New("the user went away")
	_, err = Open(Options{Dir: dir, Root: RootSource{Passphrase: func() (*secmem.Buffer, error) { return nil, cancelled }}})
	wantIs(t, err, cancelled)
	// The parameters are the store's, whatever the caller would take for a new one.
	open(t, dir, RootSource{Passphrase: passphrase("correct horse")})

	file := storeDir(t)
	wantIs(t, open(t, file, RootSource{}).Close(), nil)
	_, err = Open(Options{Dir: file, Root: right})
	wantIs(t, err, ErrWrongRootKey)
	if !strings.Contains(hint(err), "root key file") {
		t.Errorf("hint %q", hint(err))
	}
}

func TestReadPassphrase(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"line", "correct horse\nmore", "correct horse"},
		{"no newline", "correct horse", "correct horse"},
		{"DOS line", "correct\r\n", "correct"},
		{"spaces stay", "  a  \n", "  a  "},
		{"empty", "", ""},
		{"empty line", "\nx", ""},
		{"longest", strings.Repeat("x", maxPassphrase) + "\n", strings.Repeat("x", maxPassphrase)},
		{"too long", strings.Repeat("x", maxPassphrase+1) + "\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := ReadPassphrase(strings.NewReader(tt.in))
			if tt.want == "" {
				if api.ClassOf(err) != api.ClassUsage {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || string(b.Bytes()) != tt.want {
				t.Fatalf("%v", err)
			}
			wantIs(t, b.Destroy(), nil)
		})
	}
	path := filepath.Join(t.TempDir(), "p")
	write(t, path, []byte("secret\n"), 0o644)
	_, err := ReadPassphraseFile(path)
	wantIs(t, err, ErrRootKeyFile)
	wantIs(t, os.Chmod(path, 0o400), nil)
	b, err := ReadPassphraseFile(path)
	if err != nil || string(b.Bytes()) != "secret" {
		t.Fatal(err)
	}
	wantIs(t, b.Destroy(), nil)
}

func TestKDFParametersAreBounded(t *testing.T) {
	good := NewKDF(quick)
	wantIs(t, good.Check(), nil)
	for name, change := range map[string]func(*KDF){
		"no salt":            func(k *KDF) { k.Salt = nil },
		"no pass":            func(k *KDF) { k.Time = 0 },
		"too many passes":    func(k *KDF) { k.Time = 65 },
		"no lane":            func(k *KDF) { k.Threads = 0 },
		"too many lanes":     func(k *KDF) { k.Threads = 65 },
		"too little memory":  func(k *KDF) { k.Memory = 7 },
		"terabytes":          func(k *KDF) { k.Memory = 1 << 31 },
		"less than its lane": func(k *KDF) { k.Threads, k.Memory = 16, 64 },
	} {
		k := good
		change(&k)
		if _, err := k.Derive([]byte("x")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := good.Derive(nil); api.ClassOf(err) != api.ClassUsage {
		t.Errorf("empty passphrase: %v", err)
	}
}

func TestCredential(t *testing.T) {
	creds := t.TempDir()
	raw := random(keySize)
	write(t, filepath.Join(creds, "raw"), raw, 0o400)
	write(t, filepath.Join(creds, "text"), []byte(rootPrefix+hex.EncodeToString(raw)+"\n"), 0o440)
	write(t, filepath.Join(creds, "open"), raw, 0o444)
	dir := storeDir(t)

	_, err := Open(Options{Dir: dir, Root: RootSource{Credential: "raw"}})
	wantIs(t, err, ErrNoRootKey)
	t.Setenv("CREDENTIALS_DIRECTORY", creds)
	for name, want := range map[string]error{"missing": ErrNoRootKey, "../raw": ErrNoRootKey, "..": ErrNoRootKey, "open": ErrRootKeyFile} {
		_, err := Open(Options{Dir: dir, Root: RootSource{Credential: name}})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	s := open(t, dir, RootSource{Credential: "raw"})
	if st, err := s.Status(); err != nil || st.Root != RootCredential {
		t.Errorf("%+v, %v", st, err)
	}
	wantIs(t, s.Close(), nil)
	open(t, dir, RootSource{Credential: "text"}) // the same key
}
