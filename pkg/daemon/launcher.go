package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sealdisk/pkg/api"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/secmem"
)

// launcherEnv names the engine's descriptor of its link to the launcher.
const launcherEnv = "SEALDISK_LAUNCHER_FD"

// ownExecutable is this very program, even if its file was replaced since.
const ownExecutable = "/proc/self/exe"

const (
	// engineGrace is longer than the engine takes to drain its clients.
	engineGrace = shutdownTime + 15*time.Second
	kmsGrace    = 10 * time.Second
)

// launcher holds what outlives its children.
type launcher struct {
	cfg       Config
	log       *zap.Logger
	spawn     *spawner
	fetcher   *fetcher
	activated []*os.File // sockets of the service manager, for the engine
	actNames  string     // their names, as in LISTEN_FDNAMES

	mu    sync.Mutex
	state launcherState
	link  *engineLink // to the engine that runs
}

// Serve runs the daemon until ctx ends: it starts the embedded KMS (unless
// another is configured) and then the engine, starts again what dies, starts a
// key child whenever the engine asks, and stops all in order. The error is an *api.Error
// where a user can do something about it; the failure of a child at the start
// has the class of its exit code.
func Serve(ctx context.Context, cfg Config, log *zap.Logger) error {
	l := &launcher{cfg: cfg, log: log}
	var err error
	if l.activated, l.actNames, err = takeActivated(); err != nil {
		return err
	}
	if err := secmem.HardenProcess(); err != nil {
		return err
	}
	if err := cfg.check(); err != nil {
		return err
	}
	if err := cfg.makeDirs(); err != nil {
		return err
	}
	release, err := takeLocks(&cfg)
	if err != nil {
		return err
	}
	defer release()
	l.spawn = newSpawner()
	l.state = launcherState{Processes: api.Processes{Launcher: os.Getpid()}, Embedded: cfg.embeddedKMS(), KMSSocket: cfg.kmsSocket()}
	l.fetcher = newFetcher(l.spawn, log, cfg.fetchArgs(), func(n int) { l.update(func(p *api.Processes) { p.Fetching = n }) })
	defer l.fetcher.stop()
	return l.run(ctx)
}

// run starts the services one after the other and stops them in the reverse
// order when ctx ends or one fails for good.
func (l *launcher) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running []*handle // in the order of start
	start := func(s *service) error {
		s.quit = ctx.Done()
		h := launch(s, cancel)
		running = append(running, h)
		select {
		case <-h.ready:
			return nil
		case <-h.done: // its error is told below
		case <-ctx.Done():
		}
		return errStopping
	}
	if l.startAll(start) == nil {
		l.log.Info("ready", logfield.Path(l.cfg.RunDir))
		if err := sdNotify("READY=1"); err != nil {
			l.log.Warn("the service manager is not told", logfield.Err(err))
		}
		if l.cfg.ready != nil {
			l.cfg.ready()
		}
		<-ctx.Done()
	}
	l.log.Info("stopping")
	if err := sdNotify("STOPPING=1"); err != nil {
		l.log.Warn("the service manager is not told", logfield.Err(err))
	}
	var errs []error
	for _, h := range slices.Backward(running) {
		h.stop()
		<-h.done
		errs = append(errs, h.err)
	}
	return errors.Join(errs...)
}

var errStopping = errors.New("stopping")

func (l *launcher) startAll(start func(*service) error) error {
	if l.cfg.embeddedKMS() {
		err := start(&service{name: "kms", args: l.cfg.kmsArgs, files: l.kmsFiles, spawn: l.spawn, log: l.log, grace: kmsGrace,
			changed: func(pid, n int) { l.update(func(p *api.Processes) { p.KMS, p.KMSRestarts = pid, n }) }})
		if err != nil {
			return err
		}
	}
	return start(&service{name: "engine", args: l.cfg.engineArgs, files: l.engineFiles, spawn: l.spawn, log: l.log, grace: engineGrace,
		changed: func(pid, n int) { l.update(func(p *api.Processes) { p.Engine, p.EngineRestarts = pid, n }) }})
}

// handle is a service that runs in the background.
type handle struct {
	ready, done chan struct{}
	err         error // once done is closed
	stop        context.CancelFunc
}

// launch runs s; failed is called if it ends by itself.
func launch(s *service, failed func()) *handle {
	ctx, stop := context.WithCancel(context.Background())
	h := &handle{ready: make(chan struct{}), done: make(chan struct{}), stop: stop}
	go func() {
		defer close(h.done)
		if h.err = s.run(ctx, func() { close(h.ready) }); h.err != nil {
			failed()
		}
	}()
	return h
}

// kmsFiles passes on the credentials of a service manager, which may hold the
// KMS's root key.
func (l *launcher) kmsFiles() ([]*os.File, []string, func(), error) {
	var env []string
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		env = append(env, "CREDENTIALS_DIRECTORY="+dir)
	}
	return nil, env, func() {}, nil
}

// engineFiles makes a new link, and passes on the activated sockets, which
// must come first.
func (l *launcher) engineFiles() ([]*os.File, []string, func(), error) {
	ours, theirs, err := linkPair()
	if err != nil {
		return nil, nil, nil, err
	}
	files := append(append([]*os.File{}, l.activated...), theirs)
	env := []string{launcherEnv + "=" + strconv.Itoa(2+len(files))}
	if n := len(l.activated); n > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_FDNAMES="+l.actNames)
	}
	link := &engineLink{conn: ours, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	l.mu.Lock()
	l.link = link
	l.mu.Unlock()
	go func() {
		l.fetcher.serve(ours)
		close(link.gone)
		ours.Close()
	}()
	go l.tell(link)
	return files, env, func() { theirs.Close() }, nil
}

// engineLink is the launcher's end of the link to one engine.
type engineLink struct {
	conn *net.UnixConn
	wake chan struct{} // there is news
	gone chan struct{} // the engine's end is closed
}

// tell sends the engine what news there is of the processes.
func (l *launcher) tell(link *engineLink) {
	for {
		select {
		case <-link.gone:
			return
		case <-link.wake:
		}
		l.mu.Lock()
		state := l.state
		l.mu.Unlock()
		if err := sendLink(link.conn, &fromLauncher{State: &state}); err != nil {
			return
		}
	}
}

// update changes the processes' state. It does not wait for the engine.
func (l *launcher) update(change func(*api.Processes)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.state.Processes)
	if l.link == nil {
		return
	}
	select {
	case l.link.wake <- struct{}{}:
	default: // it will be told the latest anyway
	}
}

// takeActivated takes the sockets that a service manager gave this process
// (sd_listen_fds(3)), so that no child but the engine gets them.
func takeActivated() (files []*os.File, names string, err error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	names = os.Getenv("LISTEN_FDNAMES")
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, "", nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 64 {
		return nil, "", usage("at most 64 sockets can be handed over", "LISTEN_FDS=%q", count)
	}
	for i := range n {
		fd := 3 + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, "", fmt.Errorf("socket %d of the service manager: %w", i, err)
		}
		files = append(files, os.NewFile(uintptr(fd), "activated socket"))
	}
	return files, names, nil
}
