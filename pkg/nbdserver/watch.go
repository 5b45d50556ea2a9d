package nbdserver

import (
	"bytes"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watchEvery is how often the watch looks: a leader whose request blocks for one to
// two times as long loses the lead.
const watchEvery = time.Millisecond

// watchPatience is after how many looks a request counts as blocked whatever its thread does,
// since the thread may be doing something else: only a system call is sure to be where it began.
const watchPatience = 20

// watchIdle is after how many looks without anything to see the watch rests.
const watchIdle = 50

// watch sees to it that a request that blocks doesn't stop its connection's
// reading.
type watch struct {
	rests atomic.Bool
	wake  chan struct{}
}

func newWatch() *watch {
	w := &watch{wake: make(chan struct{}, 1)}
	w.rests.Store(true)
	return w
}

// kick makes it look. Called once turn is odd.
func (w *watch) kick() {
	if w.rests.Load() && w.rests.CompareAndSwap(true, false) {
		w.wake <- struct{}{} // has room: one token for each rest
	}
}

// watchConns runs until the server is shut down and its connections are gone.
func (s *Server) watchConns() {
	idle := watchIdle
	for {
		if idle >= watchIdle {
			s.watch.rests.Store(true)
			// Who made a turn odd before that did not kick: one look more.
			if !s.look() || !s.watch.rests.CompareAndSwap(true, false) {
				select {
				case <-s.watch.wake:
				case <-s.idle:
					return
				}
			}
			idle = 0
		}
		// Not by a Go timer: that would wake a second thread each time.
		ts := unix.NsecToTimespec(int64(watchEvery))
		unix.Nanosleep(&ts, nil)
		if idle++; s.look() {
			idle = 0
		}
	}
}

// look opens the lead of those who run the same request as at the last look and
// don't get on with it, and reports whether anybody ran one since.
func (s *Server) look() (busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		w := &c.crew
		turn := w.turn.Load()
		if turn&^turnOpen != w.seen {
			w.seen, w.looks, w.told = turn&^turnOpen, 0, false
			busy = true
			continue
		}
		if turn&turnRuns == 0 {
			continue
		}
		busy = true
		if w.told {
			continue
		}
		if w.looks++; w.looks < watchPatience && !sleeps(w.tid.Load()) {
			continue
		}
		if turn&turnOpen == 0 && !w.turn.CompareAndSwap(turn, turn|turnOpen) {
			continue
		}
		w.told = true
		c.disk.pace.stuck()
		c.call(true)
	}
	return busy
}

// sleeps reports whether a thread of this process waits in the kernel for
// something else than a processor: on a busy machine a request may take long without being slow.
func sleeps(tid int32) bool {
	if int(tid) == unix.Gettid() {
		return true // not where it began: here is the watch
	}
	b, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(int(tid)) + "/stat")
	if err != nil {
		return true
	}
	// "TID (NAME) STATE …", proc(5). The name may contain anything.
	_, rest, ok := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte(" "))
	return !ok || len(rest) == 0 || rest[0] != 'R'
}
