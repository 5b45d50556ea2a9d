package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/apiserver"
	"sealdisk/pkg/disk"
	"sealdisk/pkg/keyfetch"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/nbdserver"
	"sealdisk/pkg/secmem"
)

const (
	// apiDrainTime bounds how long API requests under way may finish at the end.
	apiDrainTime = 10 * time.Second
	// diskDrainTime bounds how long NBD requests under way may.
	diskDrainTime = 30 * time.Second
	// shutdownTime is how long the engine takes to stop at most, unless
	// storage hangs.
	shutdownTime = apiDrainTime + diskDrainTime
)

// engine is the process that serves disks and the EVS API.
type engine struct {
	cfg     EngineConfig
	version string
	log     *zap.Logger
	link    *launcherLink
	keys    *keyfetch.Client
	mode    secmem.Mode // of key pages
	modeErr error       // why there can't be any
	server  *nbdserver.Server
	pub     *publisher
	disks   *disk.Manager
	api     *apiserver.Server
	began   time.Time

	failed chan error // a listener that ended by itself
	served sync.WaitGroup
}

// RunEngine runs the engine until ctx ends or the launcher, whose link the
// environment names, goes away. It needs no KMS to start: disks that wait for one are
// attached as soon as it is there.
func RunEngine(ctx context.Context, cfg EngineConfig, version string, log *zap.Logger) error {
	if err := secmem.HardenProcess(); err != nil {
		return err
	}
	// The data path's goroutines are in system calls most of the time: with a processor of
	// Go's for each of them the kernel shares out the machine's, and nobody waits for one
	// that is held by a colleague's system call.
	runtime.GOMAXPROCS(max(8, 4*runtime.NumCPU()))
	// Ctrl-C on a terminal is for the launcher, which stops its children in order.
	signal.Ignore(os.Interrupt)
	e := &engine{cfg: cfg, version: version, log: log, began: time.Now(), failed: make(chan error, 16)}
	f, err := inherited(launcherEnv)
	if err != nil {
		return err
	}
	if f == nil {
		return usage("run `sealdisk serve`", "only the daemon starts this command")
	}
	if e.link, err = newLauncherLink(f); err != nil {
		return err
	}
	defer e.link.Close()
	if err := e.link.meet(ctx); err != nil {
		return err
	}
	activated, err := engineActivated()
	if err != nil {
		return err
	}
	if err := e.probe(); err != nil {
		return err
	}
	if err := e.open(); err != nil {
		return err
	}
	err = e.listen(ctx, activated)
	if err == nil {
		if err = Ready(); err == nil {
			log.Info("engine is ready", logfield.Mode(string(e.mode)))
			err = e.wait(ctx)
		}
	}
	return errors.Join(err, e.shutdown())
}

// probe finds out how keys can be kept, and refuses less than is demanded.
func (e *engine) probe() error {
	e.mode, e.modeErr = secmem.Probe()
	switch {
	case e.modeErr != nil && (e.cfg.RequireLocked || e.cfg.RequireSecretmem):
		hint := "leave out --require-locked and --require-secretmem, but no encrypted disk can be attached then"
		var m *secmem.MemlockError
		if errors.As(e.modeErr, &m) {
			hint = m.Hint()
		}
		return &api.Error{Class: api.ClassConflict, Message: e.modeErr.Error(), Hint: hint, Err: e.modeErr}
	case e.modeErr != nil:
		e.log.Error("no encrypted disk can be attached", logfield.Err(e.modeErr))
	case e.mode != secmem.ModeSecret && e.cfg.RequireSecretmem:
		return &api.Error{Class: api.ClassConflict, Message: secmem.ErrSecretUnavailable.Error(), Err: secmem.ErrSecretUnavailable,
			Hint: "leave out --require-secretmem, or boot with secretmem.enable=1"}
	case e.mode != secmem.ModeSecret:
		e.log.Warn("the kernel gives no secret memory: keys are in locked pages that root can read", logfield.Mode(string(e.mode)))
	}
	return nil
}

// open makes the parts and joins them.
func (e *engine) open() (err error) {
	e.keys = keyfetch.New(e.link, keyfetch.Options{})
	e.server = nbdserver.New(nbdserver.Config{}, e.log)
	e.pub = newPublisher(e.server, e.cfg.RunDir, e.log)
	e.disks, err = disk.Open(disk.Config{
		StateDir: e.cfg.StateDir, Keys: e.keys, Publisher: e.pub, Log: e.log,
		Secmem: secmem.Options{RequireSecret: e.cfg.RequireSecretmem},
	})
	return err
}

// listen opens the shared NBD sockets, attaches again what is wished to be
// attached, and then opens the API.
func (e *engine) listen(ctx context.Context, activated []nbdserver.Activated) error {
	gid, err := e.cfg.group()
	if err != nil {
		return err
	}
	// The state directory is this engine's by now: what lies in the run
	// directory is of a dead one.
	if err := removeStale(e.cfg.RunDir); err != nil {
		return fmt.Errorf("old sockets: %w", err)
	}
	admits := owner
	if gid >= 0 {
		admits = anyLocal // the file's mode says who
	}
	l, err := listenShared(filepath.Join(e.cfg.RunDir, nbdSocketName), gid)
	if err != nil {
		return err
	}
	e.serveNBD(l, admits)
	if e.cfg.NBDListen != "" {
		l, err := nbdserver.ListenLoopback(e.cfg.NBDListen)
		if err != nil {
			return &api.Error{Class: api.ClassUsage, Message: err.Error(), Hint: "use a loopback address such as 127.0.0.1:10809, and a free port", Err: err}
		}
		e.log.Warn("NBD over TCP: every local user can open the attached disks", logfield.Peer(l.Addr().String()))
		e.serveNBD(l, anyLocal)
	}
	var apis []net.Listener
	for _, a := range activated {
		switch {
		case a.Name == apiSocketName:
			apis = append(apis, a.Listener)
		case a.Addr().Network() == "unix":
			e.serveNBD(a.Listener, admits)
		default:
			e.serveNBD(a.Listener, anyLocal)
		}
	}
	// Whoever connects from here on waits for its answer until the disks are recovered.
	if l, err = listenShared(filepath.Join(e.cfg.RunDir, apiSocketName), gid); err != nil {
		return err
	}
	if err := e.disks.Recover(ctx, e.cfg.NoReattach); err != nil {
		e.log.Error("some disks can't be recovered", logfield.Err(err)) // and the others go on
	}
	e.api = e.newAPI()
	for _, l := range append(apis, l) {
		e.served.Go(func() { e.ended("API", e.api.Serve(l)) })
	}
	return nil
}

func (e *engine) serveNBD(l net.Listener, admits func(nbdserver.Peer) bool) {
	ex := &sharedExports{p: e.pub, allowed: admits}
	e.served.Go(func() { e.ended("NBD", e.server.Serve(l, ex)) })
}

// ended takes the end of a listener, which is a failure unless the engine
// stops.
func (e *engine) ended(what string, err error) {
	if err == nil {
		err = net.ErrClosed
	}
	select {
	case e.failed <- fmt.Errorf("%s listener: %w", what, err):
	default: // one is enough
	}
}

// wait returns when the engine is to stop; the error says why, if it should not.
func (e *engine) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.link.gone:
		return errNoLauncher
	case err := <-e.failed:
		return err
	}
}

// shutdown stops in this order: no new API requests; each disk drained,
// closed and its key pages destroyed, with the wish to be attached kept; then
// what is left of connections.
func (e *engine) shutdown() error {
	var errs []error
	within := func(d time.Duration, f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		errs = append(errs, f(ctx))
	}
	if e.api != nil {
		within(apiDrainTime, e.api.Shutdown)
	}
	within(diskDrainTime, e.disks.Close)
	within(apiDrainTime, e.server.Shutdown)
	e.served.Wait()
	e.log.Info("engine stopped", logfield.Elapsed(time.Since(e.began)))
	return errors.Join(errs...)
}

// listenShared makes a socket for the daemon's user, and group gid unless it is negative.
func listenShared(path string, gid int) (net.Listener, error) {
	l, err := nbdserver.ListenUnix(path, -1)
	if err != nil || gid < 0 {
		return l, err
	}
	if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(fmt.Errorf("give the socket to the socket group: %w", err), l.Close())
	}
	return l, nil
}

// engineActivated takes the sockets of the service manager, which gave them
// to the launcher and not to this process.
func engineActivated() ([]nbdserver.Activated, error) {
	if os.Getenv("LISTEN_FDS") == "" {
		return nil, nil
	}
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
		return nil, err
	}
	return nbdserver.ActivatedListeners()
}
