package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Kinds of sealdisk's disks.
const (
	encrypted = "encrypted" // AES-256-XTS, sectors of 4096 bytes
	small     = "512"       // the same with sectors of 512 bytes
	plain     = "plain"     // not encrypted
)

var allVariants = []string{encrypted, small, plain}

// variantFlags are what `disk create` is given.
var variantFlags = map[string][]string{
	encrypted: {"--sector-size", "4096"},
	small:     {"--sector-size", "512"},
	plain:     {"--unencrypted"},
}

// columnName of a build's disk: NAME, NAME-512, NAME-plain.
func columnName(build, variant string) string {
	if variant == encrypted {
		return build
	}
	return build + "-" + variant
}

// mainColumn is what ratios are of: the main build's first disk, which is the
// encrypted one unless -variants leaves it out.
func mainColumn(o *options) string { return columnName(o.main, o.variants[0]) }

// columns are the targets' names in the order of the tables: the main build
// first, then the others, then the main build's other disks, then the peers.
func columns(o *options) (names []string) {
	builds := slices.Clone(o.builds)
	slices.SortStableFunc(builds, func(a, b build) int {
		if (a.Name == o.main) == (b.Name == o.main) {
			return 0
		}
		if a.Name == o.main {
			return -1
		}
		return 1
	})
	for _, v := range o.variants {
		for _, b := range builds {
			names = append(names, columnName(b.Name, v))
		}
	}
	return append(names, o.peers...)
}

// buildSealdisk builds this tree's binary and returns its path.
func buildSealdisk(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "sealdisk")
	version, _ := command(ctx, nil, "git", "describe", "--tags", "--always", "--dirty")
	_, err := command(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath",
		"-ldflags", "-X main.version="+version, "-o", path, "sealdisk/cmd/sealdisk")
	if err != nil {
		return "", hint("run this from within the project, or give a binary with -sealdisk PATH", "building sealdisk: %w", err)
	}
	return path, nil
}

// daemon is a running `sealdisk serve`.
type daemon struct {
	*process
	binary, state, run string
}

// startDaemon starts a build's daemon in directories of its own, and grants
// the agency.
func (s *stage) startDaemon(ctx context.Context, b build) (*daemon, error) {
	if strings.Contains(b.Path, "/") {
		abs, err := filepath.Abs(b.Path)
		if err != nil {
			return nil, err
		}
		b.Path = abs
	}
	d := &daemon{binary: b.Path, state: filepath.Join(s.dir, b.Name), run: filepath.Join(s.dir, fmt.Sprintf("r%d", len(s.servers)))}
	var err error
	d.process, err = s.start(b.Name, d.binary, "serve", "--state-dir", d.state, "--run-dir", d.run, "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	err = d.waitFor("answer", func() bool {
		_, err := d.cli(ctx, "status")
		return (err == nil && d.groupChild("engine") != 0) || ctx.Err() != nil
	})
	if err == nil {
		_, err = d.cli(ctx, "agency", "grant")
	}
	if err != nil {
		return nil, err
	}
	return d, ctx.Err()
}

// cli runs a command of this build against its daemon.
func (d *daemon) cli(ctx context.Context, args ...string) (string, error) {
	env := []string{"SEALDISK_RUN_DIR=" + d.run, "SEALDISK_PROJECT=default", "SEALDISK_OUTPUT=table"}
	return command(ctx, env, append([]string{d.binary}, args...)...)
}

// disk makes and attaches a disk.
func (d *daemon) disk(ctx context.Context, name string, size int64, flags ...string) (uri string, err error) {
	args := append([]string{"disk", "create", name, "--size", fmt.Sprintf("%dM", size>>20)}, flags...)
	if _, err = d.cli(ctx, args...); err != nil {
		return "", err
	}
	if uri, err = d.cli(ctx, "disk", "attach", name); err != nil {
		return "", err
	}
	if !strings.HasPrefix(uri, "nbd+unix:///") {
		return "", fmt.Errorf("disk attach printed %q, want a URI", uri)
	}
	return uri, nil
}

// addBuild starts a build's daemon with a disk of each variant, as targets of
// the stage.
func (s *stage) addBuild(ctx context.Context, b build, variants []string) error {
	d, err := s.startDaemon(ctx, b)
	if err != nil {
		return err
	}
	for _, v := range variants {
		uri, err := d.disk(ctx, "disk-"+v, s.size, variantFlags[v]...)
		if err != nil {
			return err
		}
		t := &target{name: columnName(b.Name, v), uri: uri, server: d.process, engine: "engine"}
		if t.backing, err = d.image(ctx, "disk-"+v); err != nil {
			return err
		}
		s.targets = append(s.targets, t)
	}
	return nil
}

// image is the path of a disk's file.
func (d *daemon) image(ctx context.Context, name string) (string, error) {
	out, err := d.cli(ctx, "disk", "show", name, "--output", "json")
	if err != nil {
		return "", err
	}
	var shown struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || shown.ID == "" {
		return "", fmt.Errorf("disk show %s gives no id: %v\n%s", name, err, out)
	}
	return filepath.Join(d.state, "disks", shown.ID, "disk.img"), nil
}
