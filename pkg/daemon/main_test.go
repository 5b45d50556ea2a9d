package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sealdisk/blockdev"
	"sealdisk/pkg/api"
	"sealdisk/pkg/client"
	"sealdisk/pkg/kms/dew"
	"sealdisk/pkg/kmsserver"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// The test binary is also the program: called with the arguments that the
// launcher gives its children, it is that child.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-test.") {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := program(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(api.ClassOf(err).ExitCode())
	}
	os.Exit(0)
}

// program does what cmd/sealdisk does with the same arguments. A file
// <state>/misbehave names a command that is to behave badly.
func program(ctx context.Context, args []string) error {
	flags := map[string]string{}
	var command []string
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "--"); ok {
			name, value, _ := strings.Cut(name, "=")
			flags[name] = value
		} else {
			command = append(command, a)
		}
	}
	_, requireSecret := flags["require-secretmem"]
	_, noReattach := flags["no-reattach"]
	engine := EngineConfig{StateDir: flags["state-dir"], RunDir: flags["run-dir"], NBDListen: flags["nbd-listen"],
		SocketGroup: flags["socket-group"], RequireSecretmem: requireSecret, NoReattach: noReattach}
	name := strings.Join(command, " ")
	if b, _ := os.ReadFile(filepath.Join(engine.StateDir, "misbehave")); string(b) == name {
		<-make(chan struct{}) // hangs, even when asked to stop
	}
	switch name {
	case "serve":
		if flags["activate"] != "" { // as a service manager would have set it
			os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
		}
		return Serve(ctx, Config{StateDir: engine.StateDir, RunDir: engine.RunDir, Engine: engine,
			ready: func() { fmt.Println("ready") }}, zap.NewNop())
	case "engine":
		return RunEngine(ctx, engine, "test", zap.NewNop())
	case "fetch-key":
		return RunFetchKey(flags["kms-socket"], false)
	case "kms serve":
		return kmsserver.Serve(ctx, kmsserver.Config{StateDir: engine.StateDir, Socket: filepath.Join(engine.RunDir, kmsSocketName),
			Policy: kmsserver.DefaultPolicy(), Ready: func() { Ready() }}, zap.NewNop())
	}
	if name == "user" {
		return useDisk(engine.RunDir, flags["disk"])
	}
	return usage("", "unknown command %q", name)
}

// daemon is one that runs in this process, with real children.
type daemon struct {
	cfg    Config
	client *client.Client
	kms    *dew.Client
	stop   context.CancelFunc
	done   chan error
}

// dirs returns fresh directories with short names.
func dirs(t *testing.T) Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Config{StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}
}

// start runs a daemon until the test ends and waits until it is ready.
func start(t *testing.T, cfg Config) *daemon {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{cfg: cfg, stop: cancel, done: make(chan error, 1),
		client: client.New(filepath.Join(cfg.RunDir, apiSocketName)), kms: dew.NewClient(cfg.kmsSocket())}
	ready := make(chan struct{})
	cfg.ready = func() { close(ready) }
	go func() { d.done <- Serve(ctx, cfg, zap.NewNop()) }()
	t.Cleanup(func() { cancel(); d.kms.Close(); <-d.done; d.done <- nil })
	select {
	case <-ready:
	case err := <-d.done:
		d.done <- nil
		t.Fatalf("the daemon did not start: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the daemon is not ready")
	}
	return d
}

// finish stops the daemon and returns what Serve returned.
func (d *daemon) finish() error {
	d.stop()
	err := <-d.done
	d.done <- nil
	return err
}

// eventually waits for a condition of another process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never came true: %s", what)
		}
	}
}

// disk makes and attaches an encrypted disk of 8 MiB and returns it.
func (d *daemon) disk(t *testing.T, name string) api.Volume {
	t.Helper()
	ctx := t.Context()
	if _, err := d.kms.GrantAgency(ctx, "default"); err != nil {
		t.Fatal(err)
	}
	r, err := d.client.Create(ctx, "default", api.CreateVolume{Name: name, AvailabilityZone: "local", VolumeType: "file",
		Metadata: map[string]string{"__system__encrypted": "1", "__system__cmkid": api.DefaultKeyAlias},
		Sealdisk: &api.CreateVolumeExtra{SizeBytes: 8 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.client.Wait(ctx, "default", r.JobID); err != nil {
		t.Fatal(err)
	}
	v, err := d.client.Find(ctx, "default", name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.client.Attach(ctx, "default", v.ID, api.AttachRequest{}); err != nil {
		t.Fatal(err)
	}
	return v
}

// open connects to the export name on the socket path.
func open(path, name string) (blockdev.Device, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	cl, err := nbdtest.Connect(c, name, nbdtest.Features{})
	if err != nil {
		c.Close()
		return nil, err
	}
	return nbdtest.NewDevice(cl), nil
}

// write fills the first 4096 bytes of a disk with b, through its own socket, and flushes.
func (d *daemon) write(t *testing.T, id string, b byte) {
	t.Helper()
	dev, err := open(perDiskSocket(d.cfg.RunDir, id), "")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := dev.WriteAt(bytes.Repeat([]byte{b}, 4096), 0, blockdev.FUA); err != nil {
		t.Error(err)
	}
}

// holds checks that the first 4096 bytes of a disk are all b.
func (d *daemon) holds(t *testing.T, id string, b byte) {
	t.Helper()
	dev, err := open(perDiskSocket(d.cfg.RunDir, id), "")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	got := make([]byte, 4096)
	if err := dev.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{b}, 4096)) {
		t.Errorf("the disk holds %x…, want %x (%v)", got[:8], b, err)
	}
}

// status is the daemon's.
func (d *daemon) status(t *testing.T) api.Status {
	t.Helper()
	s, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// gone waits for the end of a process that is not this one's child.
func gone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000)
	}
	if n != 1 {
		t.Fatalf("process %d is still there (%v)", pid, err)
	}
}

func asJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// attachTo fills in the clients of a daemon that runs elsewhere.
func (d *daemon) attachTo(t *testing.T) {
	d.client = client.New(filepath.Join(d.cfg.RunDir, apiSocketName))
	d.kms = dew.NewClient(d.cfg.kmsSocket())
	t.Cleanup(d.kms.Close)
}

// refused returns the error of a daemon that does not start.
func refused(t *testing.T, cfg Config) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.ready = func() { t.Error("it became ready"); cancel() }
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, cfg, zap.NewNop()) }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it neither starts nor fails")
		return nil
	}
}

func ownerOf(st os.FileInfo) uint32 { return st.Sys().(*syscall.Stat_t).Uid }
