package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/keyfetch"
	"sealdisk/pkg/logfield"
)

const (
	// maxFetching bounds the key children at once. The engine runs half as
	// many; the others may be dying.
	maxFetching = 2 * keyfetch.DefaultParallel
	// maxFetchTime bounds what the engine may ask for.
	maxFetchTime = 2 * time.Minute
	// fetchGrace is how long after its deadline a key child is killed: it ends
	// itself at the deadline, with an answer.
	fetchGrace = 2 * time.Second
)

// fetcher starts key children for the engine. It reads nothing of what they
// and the engine say to each other.
type fetcher struct {
	spawn   *spawner
	log     *zap.Logger
	args    []string
	changed func(running int)

	mu       sync.Mutex
	children map[*exec.Cmd]context.CancelFunc
	stopped  bool
	done     sync.WaitGroup
}

func newFetcher(sp *spawner, log *zap.Logger, args []string, changed func(running int)) *fetcher {
	return &fetcher{spawn: sp, log: log, args: args, changed: changed, children: map[*exec.Cmd]context.CancelFunc{}}
}

// serve answers one engine until its link ends.
func (f *fetcher) serve(c *net.UnixConn) {
	for {
		var q fromEngine
		files, err := receiveLink(c, &q)
		if err != nil {
			closeAll(files)
			if !errors.Is(err, errLinkMessage) {
				return
			}
			f.log.Error("the engine said what it never says", logfield.Err(err))
			continue
		}
		a := fromLauncher{ID: q.ID}
		if err := f.fetch(&q, files); err != nil {
			f.log.Warn("no key child", logfield.Err(err))
			a.Error = err.Error()
		}
		closeAll(files)
		if err := sendLink(c, &a); err != nil {
			return
		}
	}
}

var (
	errFetchRequest = errors.New("malformed request for a key child")
	errTooMany      = errors.New("too many key children at once")
)

// fetch starts one child with files, which stay the caller's.
func (f *fetcher) fetch(q *fromEngine, files []*os.File) error {
	timeout := time.Duration(q.TimeoutMS) * time.Millisecond
	if q.Op != opFetch || q.ID == 0 || len(files) == 0 || q.TimeoutMS <= 0 || q.TimeoutMS > maxFetchTime.Milliseconds() {
		return errFetchRequest
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return errStopping
	}
	if len(f.children) >= maxFetching {
		return errTooMany
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout+fetchGrace)
	cmd := exec.CommandContext(ctx, ownExecutable) // killed when ctx ends
	cmd.Args = append([]string{"sealdisk"}, f.args...)
	cmd.Env = environment()
	if len(files) > 1 {
		cmd.Env = environment(pagesEnv + "=4")
	}
	cmd.ExtraFiles = files
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := f.spawn.start(cmd); err != nil {
		cancel()
		return err
	}
	f.children[cmd] = cancel
	f.changed(len(f.children))
	f.done.Go(func() {
		err := cmd.Wait()
		if ctx.Err() != nil {
			f.log.Warn("a key child was killed", logfield.PID(cmd.Process.Pid), logfield.Elapsed(timeout))
		} else if err != nil {
			f.log.Warn("a key child failed", logfield.PID(cmd.Process.Pid), logfield.Err(err))
		}
		cancel()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.children, cmd)
		f.changed(len(f.children))
	})
	return nil
}

// stop kills the children that are left, waits for their end and starts no
// more.
func (f *fetcher) stop() {
	f.mu.Lock()
	f.stopped = true
	for _, cancel := range f.children {
		cancel()
	}
	f.mu.Unlock()
	f.done.Wait()
}
