package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
)

func env(kv ...string) func(string) string {
	return func(name string) string {
		for i := 0; i+1 < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestPrecedence(t *testing.T) {
	conf := t.TempDir()
	if err := os.Mkdir(filepath.Join(conf, "sealdisk"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(conf, "sealdisk", "config.yaml")
	if err := os.WriteFile(file, []byte("run_dir: /file/run\nstate_dir: /file/state\nproject: fileproject\noutput: json\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	withFile, err := readConfig([]string{"/nonexistent", file})
	if err != nil {
		t.Fatal(err)
	}
	fromEnv := settings{RunDir: "/env/run", Project: "envproject", Output: "table"}
	flags := settings{RunDir: "/flag/run", StateDir: "/flag/state", Project: "flagproject", Output: "json"}
	def := settings{RunDir: "/def/run", StateDir: "/def/state"}
	for name, c := range map[string]struct{ flags, env, file, want settings }{
		"defaults":                     {settings{}, settings{}, settings{}, settings{"/def/run", "/def/state", "default", "table"}},
		"file":                         {settings{}, settings{}, withFile, settings{"/file/run", "/file/state", "fileproject", "json"}},
		"environment":                  {settings{}, fromEnv, withFile, settings{"/env/run", "/file/state", "envproject", "table"}},
		"flag":                         {flags, fromEnv, withFile, flags},
		"state dir brings its run dir": {settings{StateDir: "/my"}, settings{}, settings{}, settings{"/my/run", "/my", "default", "table"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := merge(c.flags, c.env, c.file, def); got != c.want {
				t.Fatalf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestDefaultDirectories(t *testing.T) {
	for name, c := range map[string]struct {
		env        func(string) string
		euid       int
		state, run string
	}{
		"root":           {env("HOME", "/root", "XDG_RUNTIME_DIR", "/run/user/0"), 0, "/var/lib/sealdisk", "/run/sealdisk"},
		"user":           {env("HOME", "/home/u", "XDG_RUNTIME_DIR", "/run/user/5"), 5, "/home/u/.local/state/sealdisk", "/run/user/5/sealdisk"},
		"no runtime dir": {env("HOME", "/home/u"), 5, "/home/u/.local/state/sealdisk", "/home/u/.local/state/sealdisk/run"},
		"XDG":            {env("HOME", "/home/u", "XDG_STATE_HOME", "/s"), 5, "/s/sealdisk", "/s/sealdisk/run"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := defaults(c.env, c.euid)
			if err != nil || s.StateDir != c.state || s.RunDir != c.run {
				t.Fatalf("%+v, %v", s, err)
			}
		})
	}
	if _, err := defaults(env(), 5); api.ClassOf(err) != api.ClassUsage {
		t.Fatalf("without a home: %v", err)
	}
}

func TestBadSettings(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(bad, []byte("rundir: /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readConfig([]string{bad}); api.ClassOf(err) != api.ClassUsage || !strings.Contains(err.Error(), bad) {
		t.Fatalf("got %v", err)
	}
	for name, args := range map[string][]string{
		"output":      {"--output", "xml", "version"},
		"project":     {"--project", "a/b", "version"},
		"socket path": {"--run-dir", "/" + strings.Repeat("long", 20), "version"},
		"command":     {"frobnicate"},
		"flag":        {"version", "--frobnicate"},
		"words":       {"version", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			if r := runCLI(t, "", args...); r.code != 2 || !strings.HasPrefix(r.err, "error: ") || r.out != "" {
				t.Fatalf("%+v", r)
			}
		})
	}
}

func TestEveryCommandHasHelpAndTakesNoStrayWords(t *testing.T) {
	a := &App{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s has no short help", c.CommandPath())
		}
		if c.Runnable() && !c.HasSubCommands() && c.Args == nil {
			t.Errorf("%s takes any words", c.CommandPath())
		}
		if c.Runnable() && !c.HasSubCommands() && !c.Hidden && c.Example == "" && c.HasParent() && c.Parent().Name() == "disk" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(newRoot(a))
}

func TestExitCodesAreFixed(t *testing.T) {
	for class, want := range map[api.Class]int{
		api.ClassInternal: 1, api.ClassUsage: 2, api.ClassNotFound: 3, api.ClassConflict: 4, api.ClassDenied: 5, api.ClassKeyUnusable: 6,
		api.ClassKMSUnreachable: 7, api.ClassDaemonUnreachable: 8, api.ClassNoSpace: 9, api.ClassCorrupt: 10, "unheard of": 1,
	} {
		var words bytes.Buffer
		a := &App{Err: &words}
		if got := a.fail(&api.Error{Class: class, Message: "m", Hint: "h"}); got != want {
			t.Errorf("%s: exit %d, want %d", class, got, want)
		}
		if words.String() != "error: m\nhint: h\n" {
			t.Errorf("%q", words.String())
		}
	}
}

func TestHiddenCommandsStart(t *testing.T) {
	var got []string
	a := &App{Out: new(bytes.Buffer), Err: new(bytes.Buffer), Deps: Deps{
		Serve: func(_ context.Context, o ServeOptions) error {
			got = append(got, "serve "+o.RunDir+" "+o.Engine.StateDir+" "+o.KMSSocket)
			return nil
		},
		Engine: func(_ context.Context, o EngineOptions) error {
			got = append(got, "engine "+o.RunDir)
			return &api.Error{Class: api.ClassConflict, Message: "m"}
		},
		FetchKey: func(_ context.Context, o FetchKeyOptions) error {
			got = append(got, "fetch-key "+o.KMSSocket)
			return nil
		},
	}}
	dirs := []string{"--run-dir", "/r", "--state-dir", "/s"}
	for _, c := range []struct {
		args []string
		code int
	}{{[]string{"serve", "--kms-socket", "/k"}, 0}, {[]string{"engine"}, 4}, {[]string{"fetch-key"}, 0}} {
		if code := Run(t.Context(), append(dirs, c.args...), a); code != c.code {
			t.Errorf("%q: exit %d, want %d", c.args, code, c.code)
		}
	}
	if want := "serve /r /s /k, engine /r, fetch-key /r/kms.sock"; strings.Join(got, ", ") != want {
		t.Fatalf("got %q", got)
	}
	if r := runCLI(t, "", "serve"); r.code != 1 {
		t.Fatalf("%+v", r)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"10G": 10 << 30, "10": 10 << 30, "10GiB": 10 << 30, "10gib": 10 << 30, "512m": 512 << 20, "1T": 1 << 40, "4096B": 4096, " 1K ": 1024} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "G", "0", "-1G", "1.5G", "10X", "10GG", "9223372036854775807", "8388608T", "1e3"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 512: "512 B", 4096: "4 KiB", 10 << 30: "10 GiB", 1<<30 + 4096: "1048580 KiB", 1 << 40: "1 TiB"} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestConfirmReadsYesOnly(t *testing.T) {
	for s, ok := range map[string]bool{"y\n": true, "YES\n": true, "yes": true, "\n": false, "": false, "n\n": false, "yep\n": false} {
		if err := readYes(strings.NewReader(s)); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestCompletion(t *testing.T) {
	s := newStation(t)
	s.must("disk", "create", "data", "--size", "1M")
	wantIn(t, s.must("__complete", "disk", "attach", ""), "data\t1 MiB, available")
	wantIn(t, s.must("__complete", "--output", ""), "json")
	wantIn(t, s.must("__complete", "disk", "create", "x", "--discard", ""), "off")
	if r := runCLI(t, "", "completion", "bash"); r.code != 0 || !strings.Contains(r.out, "sealdisk") {
		t.Fatalf("%+v", r)
	}
}
