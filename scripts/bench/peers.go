package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// peer is another NBD server.
type peer struct {
	name    string
	what    string
	image   string // kind of its file: plain, luks, naive; "" for none
	tools   []string
	command func(socket, image, pass string, size int64) []string
}

// qemu-nbd takes one connection unless told.
const mostConnections = "128"

var allPeers = []peer{
	{
		"nbdkit-file", "nbdkit's file plug-in, plain text", "plain", []string{"nbdkit"},
		func(socket, image, _ string, _ int64) []string {
			return []string{"nbdkit", "-f", "-U", socket, "file", image}
		},
	},
	{
		"nbdkit-luks", "the same with the LUKS1 filter", "luks", []string{"nbdkit", "qemu-img"},
		func(socket, image, pass string, _ int64) []string {
			return []string{"nbdkit", "-f", "-U", socket, "file", image, "--filter=luks", "passphrase=+" + pass}
		},
	},
	{
		"qemu-raw", "qemu-nbd, plain text", "plain", []string{"qemu-nbd"},
		func(socket, image, _ string, _ int64) []string {
			return []string{"qemu-nbd", "-k", socket, "-f", "raw", "-t", "-e", mostConnections, image}
		},
	},
	{
		"qemu-luks", "qemu-nbd with its LUKS1 driver", "luks", []string{"qemu-nbd", "qemu-img"},
		func(socket, image, pass string, _ int64) []string {
			return []string{
				"qemu-nbd", "-k", socket, "-t", "-e", mostConnections, "--object", "secret,id=s,file=" + pass,
				"--image-opts", "driver=luks,key-secret=s,file.driver=file,file.filename=" + image,
			}
		},
	},
	{
		"go-nbd", "the naive baseline: go-nbd's server with golang.org/x/crypto/xts", "naive", nil,
		func(socket, image, _ string, _ int64) []string {
			return []string{"/proc/self/exe", naiveCommand, socket, image}
		},
	},
	{
		"nbdkit-null", "nbdkit's null plug-in: no storage, the protocol's ceiling", "", []string{"nbdkit"},
		func(socket, _, _ string, size int64) []string {
			return []string{"nbdkit", "-f", "-U", socket, "null", fmt.Sprint(size)}
		},
	},
}

func peerNames() (names []string) {
	for _, p := range allPeers {
		names = append(names, p.name)
	}
	return names
}

func peerNamed(name string) (peer, bool) {
	for _, p := range allPeers {
		if p.name == name {
			return p, true
		}
	}
	return peer{}, false
}

// needTools returns an error that names the programs that are missing.
func needTools(peers []string) error {
	missing := map[string]bool{}
	want := []string{"fio"}
	for _, name := range peers {
		p, _ := peerNamed(name)
		want = append(want, p.tools...)
	}
	for _, tool := range want {
		if _, err := exec.LookPath(tool); err != nil && !missing[tool] {
			missing[tool] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var names []string
	for name := range missing {
		names = append(names, name)
	}
	return hint("scripts/deps.sh bench installs it, or leave it out with -peers", "missing here: %v", names)
}

// addPeer starts a peer as a target of the stage.
func (s *stage) addPeer(ctx context.Context, name string) error {
	p, ok := peerNamed(name)
	if !ok {
		return fmt.Errorf("no such peer: %s", name)
	}
	image, pass := "", filepath.Join(s.dir, "pass")
	if p.image != "" {
		image = filepath.Join(s.dir, p.image+".img")
		if err := s.makeImage(ctx, p.image, image, pass); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	socket := filepath.Join(s.dir, name+".sock")
	argv := p.command(socket, image, pass, s.size)
	if argv[0] == "/proc/self/exe" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		argv[0] = self
	}
	server, err := s.start(name, argv...)
	if err != nil {
		return err
	}
	err = server.waitFor("socket", func() bool {
		_, err := os.Stat(socket)
		return err == nil || ctx.Err() != nil
	})
	if err != nil {
		return err
	}
	s.targets = append(s.targets, &target{name: name, uri: "nbd+unix:///?socket=" + socket, backing: image, server: server})
	return ctx.Err()
}

// makeImage makes a peer's file, if another has not made it yet.
func (s *stage) makeImage(ctx context.Context, kind, image, pass string) error {
	if _, err := os.Stat(image); err == nil {
		return nil
	}
	if kind != "luks" {
		f, err := os.Create(image)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(s.size)
	}
	if err := os.WriteFile(pass, []byte("benchmark"), 0o600); err != nil {
		return err
	}
	// iter-time: how long the passphrase is hashed, which is no matter here. On a busy
	// machine qemu-img may fail to measure that ("accurate CPU usage").
	var err error
	for range 5 {
		_, err = command(ctx, nil, "qemu-img", "create", "-q", "--object", "secret,id=s,file="+pass,
			"-f", "luks", "-o", "key-secret=s,iter-time=10", image, fmt.Sprint(s.size))
		if err == nil || ctx.Err() != nil {
			break
		}
		os.Remove(image)
	}
	return err
}
