package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// target is one export that is measured: a column of the tables.
type target struct {
	name    string
	uri     string
	backing string // file with the data, "" for none; two peers may share one
	server  *process
	engine  string // argument of the server's child that serves, "" if it serves itself
}

// pid of the process whose CPU and memory count.
func (t *target) pid() (int, error) {
	if err := t.server.alive(); err != nil {
		return 0, err
	}
	if t.engine == "" {
		return t.server.pid(), nil
	}
	if pid := t.server.groupChild(t.engine); pid != 0 {
		return pid, nil
	}
	return 0, fmt.Errorf("%s has no process %q\n%s", t.server.name, t.engine, t.server.lastWords())
}

// stage is a set of targets that run at the same time, with their files in one
// directory.
type stage struct {
	dir     string
	size    int64
	targets []*target
	servers []*process
}

func newStage(parent string, size int64) (*stage, error) {
	dir, err := tempDir(parent)
	if err != nil {
		return nil, err
	}
	return &stage{dir: dir, size: size}, nil
}

// close ends the servers and removes the files.
func (s *stage) close() {
	for _, p := range s.servers {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // all at once, then wait for each
	}
	for _, p := range s.servers {
		p.stop()
	}
	os.RemoveAll(s.dir)
}

// start starts a server that is stopped with the stage.
func (s *stage) start(name string, argv ...string) (*process, error) {
	p, err := startProcess(name, s.dir+"/"+name+".log", argv...)
	if err != nil {
		return nil, err
	}
	s.servers = append(s.servers, p)
	return p, nil
}

// find gives the target of this name, nil if it does not run.
func (s *stage) find(name string) *target {
	for _, t := range s.targets {
		if t.name == name {
			return t
		}
	}
	return nil
}

// needSpace returns an error if the directory can't take n more bytes.
func needSpace(dir string, n int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return hint("choose another directory with -dir or -disk-dir", "%s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < n {
		return hint("-size takes less, -dir and -disk-dir other directories, -peers and -variants fewer disks",
			"%s has %d MiB free, and the disks need %d", dir, free>>20, n>>20)
	}
	return nil
}

// fill writes every block of each target once, so that nobody reads holes.
func (s *stage) fill(ctx context.Context) error {
	filled := map[string]bool{"": true}
	for _, t := range s.targets {
		if filled[t.backing] {
			continue
		}
		filled[t.backing] = true
		progress("filling %s", t.name)
		w := work{cell: cell{RW: "write", BS: mib1, QD: 8, Jobs: 1}, uri: t.uri, size: s.size}
		if _, _, err := runFio(ctx, s.dir, w); err != nil {
			return fmt.Errorf("filling %s: %w", t.name, err)
		}
	}
	return nil
}

// command runs a short program to its end and returns its standard output.
func command(ctx context.Context, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", hint("scripts/deps.sh bench says what is missing", "%w", err)
		}
		return "", fmt.Errorf("%s: %w\n    %s", strings.Join(argv, " "), err, strings.ReplaceAll(strings.TrimSpace(said.String()), "\n", "\n    "))
	}
	return strings.TrimSpace(out.String()), nil
}
