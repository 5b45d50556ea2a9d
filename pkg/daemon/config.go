// Package daemon is what `sealdisk serve` runs: the launcher, which starts the
// other processes and does nothing else; the engine, which serves disks and
// the EVS API; and the wiring of the parts in between.
//
//	launcher (Serve)  ── starts ──► embedded KMS, engine (RunEngine), one
//	                                fetch-key (RunFetchKey) for each key
//	engine ◄── SEQPACKET pair ──► launcher: "fetch", with descriptors
//
// The launcher takes no input from clients and gives its children fixed
// arguments and a fixed environment. It dies last: whoever kills it kills its children
// (PDEATHSIG).
package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"sealdisk/pkg/api"
)

// Config configures Serve.
type Config struct {
	StateDir, RunDir string
	// KMSSocket is of another KMS, which is used instead of the embedded one.
	KMSSocket string
	KMSArgs   []string // further flags for the embedded `kms serve`
	Engine    EngineConfig

	ready func() // called once the daemon is ready; tests set it
}

// EngineConfig configures RunEngine. Its fields are those of cli.EngineOptions, so that one
// converts to the other.
type EngineConfig struct {
	RunDir, StateDir string
	NoReattach       bool   // do not attach again what was attached before a restart
	RequireSecretmem bool   // refuse key pages that are not memfd_secret
	RequireLocked    bool   // refuse to run where memory can't be locked
	SocketGroup      string // group that may use the sockets
	NBDListen        string // TCP address of the NBD server, loopback only; "" is off
	LogLevel         string // debug, info, warn or error
}

const (
	// maxSocketPath is what fits into sockaddr_un.sun_path with its final zero.
	maxSocketPath = 107
	kmsSocketName = "kms.sock"
	apiSocketName = "api.sock"
	nbdSocketName = "nbd.sock"
	nbdDirName    = "nbd"
)

func (c *Config) kmsSocket() string {
	if c.KMSSocket != "" {
		return c.KMSSocket
	}
	return filepath.Join(c.RunDir, kmsSocketName)
}

func (c *Config) embeddedKMS() bool { return c.KMSSocket == "" }

// check returns an *api.Error of class usage for what can't work.
func (c *Config) check() error {
	for _, d := range []struct{ flag, dir string }{{"--state-dir", c.StateDir}, {"--run-dir", c.RunDir}} {
		if !filepath.IsAbs(d.dir) {
			return usage("give an absolute path", "%s %q is not an absolute path", d.flag, d.dir)
		}
	}
	longest := perDiskSocket(c.RunDir, "00000000-0000-0000-0000-000000000000")
	for _, path := range []string{longest, c.kmsSocket()} {
		if len(path) > maxSocketPath {
			return usage("choose a shorter --run-dir", "socket path %s is longer than %d bytes", path, maxSocketPath)
		}
	}
	_, err := c.Engine.group()
	return err
}

// perDiskSocket is the path of the NBD socket of one attachment.
func perDiskSocket(runDir, id string) string {
	return filepath.Join(runDir, nbdDirName, id+".sock")
}

// group returns the gid of SocketGroup, -1 if there is none.
func (c *EngineConfig) group() (int, error) {
	if c.SocketGroup == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(c.SocketGroup)
	if err != nil {
		return -1, usage("create the group, or leave out --socket-group", "socket group: %v", err)
	}
	return strconv.Atoi(g.Gid)
}

// makeDirs creates what directories the processes work in. The run directory is for its
// owner, and for the socket group if there is one; each disk's socket
// in it has an owner of its own.
func (c *Config) makeDirs() error {
	gid, err := c.Engine.group()
	if err != nil {
		return err
	}
	runMode := os.FileMode(0o700)
	if gid >= 0 {
		runMode = 0o750
	}
	for _, d := range []struct {
		path string
		mode os.FileMode
		gid  int
	}{{c.StateDir, 0o700, -1}, {c.RunDir, runMode, gid}, {filepath.Join(c.RunDir, nbdDirName), 0o711, -1}} {
		if err := makeDir(d.path, d.mode, d.gid); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes dir, or takes one that exists and belongs to this user, with
// mode and group.
func makeDir(dir string, mode os.FileMode, gid int) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return &api.Error{Class: api.ClassDenied, Message: err.Error(), Hint: "choose --state-dir and --run-dir where this user may write", Err: err}
		}
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if gid >= 0 {
		if err := os.Chown(dir, -1, gid); err != nil {
			return fmt.Errorf("give %s to the socket group: %w", dir, err)
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		return &api.Error{Class: api.ClassDenied, Message: err.Error(), Hint: "the directory must belong to the daemon's user", Err: err}
	}
	return nil
}

func usage(hint, format string, v ...any) error {
	return &api.Error{Class: api.ClassUsage, Message: fmt.Sprintf(format, v...), Hint: hint}
}

// engineArgs are the arguments of the engine.
func (c *Config) engineArgs() []string {
	e := &c.Engine
	args := []string{"engine", "--state-dir=" + c.StateDir, "--run-dir=" + c.RunDir}
	for _, f := range []struct {
		on   bool
		flag string
	}{
		{e.NoReattach, "--no-reattach"},
		{e.RequireSecretmem, "--require-secretmem"},
		{e.RequireLocked, "--require-locked"},
		{e.SocketGroup != "", "--socket-group=" + e.SocketGroup},
		{e.NBDListen != "", "--nbd-listen=" + e.NBDListen},
		{e.LogLevel != "", "--log-level=" + e.LogLevel},
	} {
		if f.on {
			args = append(args, f.flag)
		}
	}
	return args
}

// kmsArgs are the arguments of the embedded KMS.
func (c *Config) kmsArgs() []string {
	args := []string{"kms", "serve", "--state-dir=" + c.StateDir, "--run-dir=" + c.RunDir}
	if c.Engine.RequireLocked {
		args = append(args, "--require-locked")
	}
	if c.Engine.SocketGroup != "" {
		args = append(args, "--socket-group="+c.Engine.SocketGroup)
	}
	if c.Engine.LogLevel != "" {
		args = append(args, "--log-level="+c.Engine.LogLevel)
	}
	return append(args, c.KMSArgs...)
}

// fetchArgs are the arguments of a fetch-key child.
func (c *Config) fetchArgs() []string {
	args := []string{"fetch-key", "--state-dir=" + c.StateDir, "--run-dir=" + c.RunDir, "--kms-socket=" + c.kmsSocket()}
	if c.Engine.RequireLocked {
		args = append(args, "--require-locked")
	}
	return args
}

// environment is that of every child, with what is added. HOME is no
// directory: children read no user's configuration.
func environment(add ...string) []string {
	return append([]string{"HOME=/nonexistent", "LANG=C.UTF-8"}, add...)
}
