package kmsserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/secmem"
)

// Config says how the embedded KMS runs.
type Config struct {
	StateDir      string // the store is in its sub-directory kms
	Socket        string // path of the unix socket
	SocketGID     int    // group that may connect too; 0 or negative is none
	Policy        Policy
	Root          keystore.RootSource
	RequireLocked bool   // refuse to run where memory cannot be locked
	Ready         func() // called, if set, once requests are accepted
}

const (
	headerTime  = 5 * time.Second
	idleTime    = time.Minute
	drainTime   = 5 * time.Second
	maxHeader   = 8 << 10 // bytes
	storeFolder = "kms"
)

// StoreDir is where the key store of a state directory is.
func StoreDir(stateDir string) string { return filepath.Join(stateDir, storeFolder) }

// Serve runs the embedded KMS until ctx ends, then lets the requests under way
// finish. It makes the whole process undumpable and locks its memory.
//
// Errors: keystore.Open's, secmem.ErrMemlock with RequireLocked, or what kept
// it from listening; nil after ctx ended.
func Serve(ctx context.Context, cfg Config, log *zap.Logger) (err error) {
	if err := secmem.HardenProcess(); err != nil {
		return err
	}
	// The passphrase's key derivation wants 64 MiB for a moment, so memory is
	// locked after the store is open. Keys are in locked pages from the start.
	store, err := keystore.Open(keystore.Options{Dir: StoreDir(cfg.StateDir), Root: cfg.Root})
	if err != nil {
		return fmt.Errorf("opening the key store: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	locked, err := lockMemory(cfg.RequireLocked, log)
	if err != nil {
		return err
	}
	gid := cfg.SocketGID
	if gid == 0 {
		gid = -1
	}
	l, release, err := listen(cfg.Socket, gid)
	if err != nil {
		return err
	}
	defer release()

	srv := &http.Server{
		Handler:           New(store, cfg.Policy, locked, log),
		ConnContext:       ConnContext,
		ReadHeaderTimeout: headerTime,
		WriteTimeout:      shortTime, // each route sets its own
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          zap.NewStdLog(log),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	log.Info("KMS is ready", logfield.Path(cfg.Socket), logfield.Mode(string(cfg.Root.Mode())))
	if store.Created() {
		welcome(log, cfg)
	}
	if cfg.Ready != nil {
		cfg.Ready()
	}
	select {
	case err := <-done:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		_ = srv.Close() // those that did not finish in time
		log.Warn("requests were cut off at shutdown", logfield.Err(err))
	}
	_ = l.Close() // had srv.Serve not begun yet, Shutdown would not know l
	<-done
	return nil
}

func lockMemory(require bool, log *zap.Logger) (bool, error) {
	err := secmem.LockAll()
	switch {
	case err == nil:
		return true, nil
	case require:
		return false, fmt.Errorf("memory must be locked (--require-locked): %w", err)
	}
	log.Warn("not all memory of the KMS is locked; only its key pages are", logfield.Err(err))
	return false, nil
}

// welcome says, once in a store's life, what its owner must know.
func welcome(log *zap.Logger, cfg Config) {
	log.Warn("a new key store was made; without it or its root key no encrypted disk can ever be opened: make a backup now with `sealdisk kms backup FILE`",
		logfield.Path(StoreDir(cfg.StateDir)))
	if cfg.Root.Mode() == keystore.RootFile {
		log.Warn("the root key lies beside the disks: it does not protect a stolen host; a passphrase or a systemd credential does")
	}
}
