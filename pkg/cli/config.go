package cli

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"go.yaml.in/yaml/v3"

	"sealdisk/pkg/api"
)

// maxSocketPath is what fits into sockaddr_un.sun_path with its final zero.
const maxSocketPath = 107

// settings may be given by flag, environment (not state_dir) or config file, in
// this order of precedence.
type settings struct {
	RunDir   string `yaml:"run_dir"`
	StateDir string `yaml:"state_dir"`
	Project  string `yaml:"project"`
	Output   string `yaml:"output"`
}

var projectPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// resolve fills RunDir, StateDir, Project and Output.
func (a *App) resolve(getenv func(string) string) error {
	file, err := readConfig(configPaths(getenv, os.Geteuid()))
	if err != nil {
		return err
	}
	env := settings{RunDir: getenv("SEALDISK_RUN_DIR"), Project: getenv("SEALDISK_PROJECT"), Output: getenv("SEALDISK_OUTPUT")}
	def, err := defaults(getenv, os.Geteuid())
	if err != nil {
		return err
	}
	s := merge(a.flags, env, file, def)
	a.StateDir, a.RunDir, a.Project, a.Output = s.StateDir, s.RunDir, s.Project, s.Output
	if a.Output != "table" && a.Output != "json" {
		return usagef("use --output table or --output json", "unknown output %q", a.Output)
	}
	if !projectPattern.MatchString(a.Project) {
		return usagef("a project is 1 to 64 letters, digits, '-' and '_'", "bad project %q", a.Project)
	}
	if a.StateDir, err = filepath.Abs(a.StateDir); err != nil {
		return err
	}
	if a.RunDir, err = filepath.Abs(a.RunDir); err != nil {
		return err
	}
	if longest := a.Socket("nbd/00000000-0000-0000-0000-000000000000.sock"); len(longest) > maxSocketPath {
		return usagef("choose a shorter --run-dir", "socket path %s is longer than %d bytes", longest, maxSocketPath)
	}
	return nil
}

// merge takes each setting from the first that gives it.
func merge(flags, env, file, def settings) settings {
	s := settings{
		StateDir: first(flags.StateDir, file.StateDir),
		RunDir:   first(flags.RunDir, env.RunDir, file.RunDir),
		Project:  first(flags.Project, env.Project, file.Project, "default"),
		Output:   first(flags.Output, env.Output, file.Output, "table"),
	}
	if s.StateDir == "" {
		s.StateDir, s.RunDir = def.StateDir, first(s.RunDir, def.RunDir)
	} else if s.RunDir == "" {
		s.RunDir = filepath.Join(s.StateDir, "run") // another daemon than the default one
	}
	return s
}

// Socket returns the path of a socket in the run directory, e.g. "api.sock".
func (a *App) Socket(name string) string { return filepath.Join(a.RunDir, name) }

// defaults are the directories of root and of everybody else.
func defaults(getenv func(string) string, euid int) (settings, error) {
	if euid == 0 {
		return settings{StateDir: "/var/lib/sealdisk", RunDir: "/run/sealdisk"}, nil
	}
	state := getenv("XDG_STATE_HOME")
	if state == "" {
		home := getenv("HOME")
		if home == "" {
			return settings{}, usagef("set HOME or XDG_STATE_HOME, or give --state-dir and --run-dir", "no home directory")
		}
		state = filepath.Join(home, ".local", "state")
	}
	s := settings{StateDir: filepath.Join(state, "sealdisk")}
	if run := getenv("XDG_RUNTIME_DIR"); run != "" {
		s.RunDir = filepath.Join(run, "sealdisk")
	} else {
		s.RunDir = filepath.Join(s.StateDir, "run")
	}
	return s, nil
}

// configPaths returns the config files in order: the first that exists is read.
func configPaths(getenv func(string) string, euid int) []string {
	system := "/etc/sealdisk/config.yaml"
	if euid == 0 {
		return []string{system}
	}
	dir := getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(getenv("HOME"), ".config")
	}
	return []string{filepath.Join(dir, "sealdisk", "config.yaml"), system}
}

// readConfig reads the first of paths that exists; none is no error.
func readConfig(paths []string) (settings, error) {
	var s settings
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return s, &api.Error{Class: api.ClassUsage, Message: err.Error(), Err: err}
		}
		d := yaml.NewDecoder(bytes.NewReader(b))
		d.KnownFields(true)
		if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
			return s, usagef("its fields are run_dir, state_dir, project and output", "bad config file %s: %v", p, err)
		}
		return s, nil
	}
	return s, nil
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
