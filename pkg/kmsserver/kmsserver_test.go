package kmsserver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/dew"
	"sealdisk/pkg/kmsserver"
)

const project = "default"

var nop = zap.NewNop()

// instance is a KMS that runs in this process.
type instance struct {
	state, socket string
	logs          *observer.ObservedLogs
	stop          func() error
}

// tempDir is short: socket paths have 107 bytes.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start runs a KMS on dir until the test ends or stop is called.
func start(t testing.TB, dir string, change ...func(*kmsserver.Config)) *instance {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	ready := make(chan struct{})
	cfg := kmsserver.Config{StateDir: dir, Socket: filepath.Join(dir, "run", "kms.sock"),
		Policy: kmsserver.DefaultPolicy(), Ready: func() { close(ready) }}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- kmsserver.Serve(ctx, cfg, zap.New(core)) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("the KMS did not start: %v", err)
	}
	var stopped bool
	in := &instance{state: dir, socket: cfg.Socket, logs: logs}
	in.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := in.stop(); err != nil {
			t.Errorf("stopping the KMS: %v", err)
		}
	})
	return in
}

func TestDataKeyComesBackOnlyWithItsBinding(t *testing.T) {
	in := start(t, tempDir(t))
	ctx := t.Context()
	admin := dew.NewClient(in.socket)
	defer admin.Close()
	evs := dew.New(in.socket)
	id, err := admin.CreateKey(ctx, project, "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	const aad = "sealdisk:v1:default:7f9f"
	if _, err := evs.NewWrapped(ctx, project, "k1", aad); !errors.Is(err, kms.ErrNoAgency) {
		t.Fatalf("without an agency: %v", err)
	}
	if _, err := admin.GrantAgency(ctx, project); err != nil {
		t.Fatal(err)
	}
	w, err := evs.NewWrapped(ctx, project, "k1", aad)
	if err != nil || w.KeyID != id || w.KeyVersion != "1" {
		t.Fatalf("%+v, %v", w.KeyID, err)
	}
	dk, again := make([]byte, kms.DKSize), make([]byte, kms.DKSize)
	if err := evs.Unwrap(ctx, project, w, aad, dk); err != nil {
		t.Fatal(err)
	}
	if err := evs.Unwrap(ctx, project, w, aad, again); err != nil || string(dk) != string(again) || string(dk) == string(make([]byte, kms.DKSize)) {
		t.Fatalf("the second time: %v", err)
	}
	if err := evs.Unwrap(ctx, project, w, aad+"x", again); !errors.Is(err, kms.ErrBinding) {
		t.Fatalf("another disk: %v", err)
	}
}
