package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// launcherLink is the engine's end of its link to the launcher. It is the
// keyfetch.Spawner of the engine.
type launcherLink struct {
	conn *net.UnixConn
	gone chan struct{} // the launcher's end is closed
	met  chan struct{} // closed once the launcher told of this very engine

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan<- string // by message id: the launcher's answer
	state   launcherState
}

// errNoLauncher is returned once the launcher is gone; the kernel kills the
// engine then.
var errNoLauncher = errors.New("the launcher is gone")

func newLauncherLink(f *os.File) (*launcherLink, error) {
	conn, err := linkOf(f)
	if err != nil {
		return nil, err
	}
	l := &launcherLink{conn: conn, gone: make(chan struct{}), met: make(chan struct{}), waiting: map[uint64]chan<- string{}}
	go l.read()
	return l, nil
}

func (l *launcherLink) read() {
	defer close(l.gone)
	met := false
	for {
		var m fromLauncher
		files, err := receiveLink(l.conn, &m)
		closeAll(files) // it never sends any
		if err != nil {
			return
		}
		l.mu.Lock()
		if m.State != nil {
			l.state = *m.State
			if !met && l.state.Processes.Engine == os.Getpid() {
				met = true
				close(l.met)
			}
		}
		if answer := l.waiting[m.ID]; answer != nil {
			answer <- m.Error // has room for one
			delete(l.waiting, m.ID)
		}
		l.mu.Unlock()
	}
}

// meet waits until the launcher told of this engine, so that no status is given out
// before that.
func (l *launcherLink) meet(ctx context.Context) error {
	select {
	case <-l.met:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.gone:
		return errNoLauncher
	}
}

// Spawn implements keyfetch.Spawner.
func (l *launcherLink) Spawn(ctx context.Context, files ...*os.File) error {
	timeout := maxFetchTime
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	answer := make(chan string, 1)
	l.mu.Lock()
	l.last++
	id := l.last
	l.waiting[id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, id)
		l.mu.Unlock()
	}()
	q := fromEngine{Op: opFetch, ID: id, TimeoutMS: max(timeout.Milliseconds(), 1)}
	if err := sendLink(l.conn, &q, files...); err != nil {
		return fmt.Errorf("ask the launcher: %w", err)
	}
	select {
	case msg := <-answer:
		if msg != "" {
			return errors.New(msg)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.gone:
		return errNoLauncher
	}
}

// told is what the launcher told last.
func (l *launcherLink) told() launcherState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Close ends the link.
func (l *launcherLink) Close() error { return l.conn.Close() }
