// Package bench measures an attached disk through NBD, as a user of the disk sees
// it: rows of reads, and of writes if asked, each for a while with a fixed number of
// requests under way.
//
// # Writes
//
// The disk belongs to a user, and its contents are what they were before, whatever
// happens: power cut, kill, error, Ctrl-C.
//
//   - Only what has just been read is written, to where it was read. A batch of blocks is read,
//     then written back with the row's queue depth; only the writing is timed. Encryption is
//     deterministic, so the storage below gets the same bytes again.
//   - Where the disk has holes, a write would measure allocation first and then
//     something else. So holes are filled at the start, by the same rule (with the zeros that they read
//     as), and given back at the end, each only if it still reads as zeros.
//   - Nobody else may use the disk: a write of theirs between reading and writing back would be
//     lost. Config.Alone is asked before each batch is written and ends the run.
package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sealdisk/pkg/latency"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbd/nbdclient"
)

// RequestError is returned when the server refused a request of the measurement.
type RequestError struct {
	Command nbd.Command
	Errno   nbd.Errno
}

func (e *RequestError) Error() string { return fmt.Sprintf("%v: %v", e.Command, e.Errno) }

// Unwrap returns the errno.
func (e *RequestError) Unwrap() error { return e.Errno }

// ErrReadOnly is returned when writes are asked of a disk that takes none.
var ErrReadOnly = errors.New("the disk is attached read-only")

// Work is what a row of the result measures: so many requests of Block bytes under way
// on each connection.
type Work struct {
	Write, Random bool
	Block         int // bytes
	Depth         int
}

// Works are the rows, in order.
func Works(write bool) []Work {
	w := []Work{
		{Random: true, Block: 4 << 10, Depth: 1},
		{Random: true, Block: 4 << 10, Depth: 32},
		{Block: 128 << 10, Depth: 16},
		{Block: 1 << 20, Depth: 8},
	}
	if write {
		for _, r := range w[:len(w):len(w)] {
			r.Write = true
			w = append(w, r)
		}
	}
	return w
}

// Config of a run.
type Config struct {
	// Dial opens a connection to the disk. It is called Connections+1 times.
	Dial        func(context.Context, nbdclient.Options) (*nbdclient.Conn, error)
	Connections int           // that measure, at least 1
	Time        time.Duration // that each row is measured
	Range       int64         // bytes from the disk's start that are used; 0: all
	Write       bool          // measure writes too
	// Alone returns an error unless own is the number of connections that the disk
	// has. It is called before anything is written, again and again; needed with Write.
	Alone func(ctx context.Context, own int) error
	// Progress, if set, is told ten times a second how a row is doing. It is called by one goroutine.
	Progress func(Progress)
}

// Progress of the row that is measured: number Row (from 0) of Rows. Nothing is measured in a step
// of the preparation; it has a name.
type Progress struct {
	Row, Rows int
	Step      string
	Result
}

// Result of a row. Of an interrupted row it says what was measured until then.
type Result struct {
	Work
	Ops     uint64
	Time    time.Duration // in which Ops were done
	Latency *latency.Histogram
}

// PerSecond is the number of operations per second.
func (r *Result) PerSecond() float64 {
	if r.Time <= 0 {
		return 0
	}
	return float64(r.Ops) / r.Time.Seconds()
}

// BytesPerSecond is the same in bytes.
func (r *Result) BytesPerSecond() float64 { return r.PerSecond() * float64(r.Block) }

// Report is the outcome of a run.
type Report struct {
	Size, Range int64 // bytes: of the disk, and of it what was used
	// Looked is how much of Range was looked at for holes, in bytes, and Holes how
	// much of that reads as zeros without storage. Both 0: the server does not tell.
	Looked, Holes int64
	Filled        int64 // bytes of holes that were filled for the time of the run
	Kept          int64 // of these, what could not be given back: it takes up storage now
	Results       []Result
	Interrupted   bool // ctx ended it before all rows were done
}

// grace is how long requests under way may take to end once the run is interrupted.
var grace = 5 * time.Second // shorter in a test

// controlDepth is how many requests the connection that sees to holes has under way.
const controlDepth = 16

// run is one measurement.
type run struct {
	Config
	ctx     context.Context
	control *worker // looks for holes, fills them and gives them back
	workers []*worker
	report  *Report
	began   time.Time
	stopped atomic.Bool
	cursor  atomic.Uint64 // of sequential rows, in bytes
	timed   atomic.Int64  // ns that the row's timed phases have taken
}

// Run measures. The report holds what was measured also when there is an
// error; it is nil when nothing was begun. A ctx that ends is no error.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &run{Config: cfg, ctx: ctx, began: time.Now()}
	defer r.close()
	if err := r.connect(); err != nil {
		return nil, err
	}
	size := r.control.conn.Size()
	r.report = &Report{Size: size, Range: size}
	if cfg.Range > 0 {
		r.report.Range = min(cfg.Range, size)
	}
	if cfg.Write {
		if r.control.conn.Flags()&nbd.FlagReadOnly != 0 {
			return nil, ErrReadOnly
		}
		if err := r.alone(ctx); err != nil {
			return nil, err
		}
	}
	return r.report, r.measure()
}

// connect opens all connections at once, so that their number does not change later.
func (r *run) connect() error {
	c, err := r.Dial(r.ctx, nbdclient.Options{Depth: controlDepth, Allocation: true})
	if err != nil {
		return err
	}
	r.control = newWorker(r, c)
	for range r.Connections {
		c, err := r.Dial(r.ctx, nbdclient.Options{Depth: maxDepth})
		if err != nil {
			return err
		}
		r.workers = append(r.workers, newWorker(r, c))
	}
	return nil
}

func (r *run) conns() (all []*nbdclient.Conn) {
	if r.control != nil {
		all = append(all, r.control.conn)
	}
	for _, w := range r.workers {
		all = append(all, w.conn)
	}
	return all
}

func (r *run) close() {
	for _, c := range r.conns() {
		c.Close()
	}
}

// alone asks whether nobody else uses the disk.
func (r *run) alone(ctx context.Context) error { return r.Alone(ctx, len(r.workers)+1) }

// interruptible lets f be stopped by the run's context: nothing new is submitted, and
// what is under way has grace. Then that is no error.
func (r *run) interruptible(f func() error) error {
	late := make(chan *time.Timer, 1)
	stop := context.AfterFunc(r.ctx, func() {
		r.stopped.Store(true)
		late <- time.AfterFunc(grace, func() {
			for _, c := range r.conns() {
				c.Abort()
			}
		})
	})
	err := f()
	if !stop() {
		(<-late).Stop()
		r.report.Interrupted = true
		if errors.Is(err, context.Canceled) || errors.Is(err, nbdclient.ErrClosed) {
			err = nil
		}
	}
	return err
}

// measure is all between connect and close.
func (r *run) measure() error {
	var holes []hole
	err := r.interruptible(func() (err error) {
		if holes, err = r.look(); err != nil {
			return err
		}
		if r.Write {
			if err := r.fill(holes); err != nil {
				return err
			}
		}
		return r.rows()
	})
	if r.report.Filled > 0 {
		if back := r.giveBack(holes); err == nil {
			err = back
		}
	}
	return err
}

// rows measures one row after the other. Rows whose blocks are larger than the range are left out.
func (r *run) rows() error {
	works := Works(r.Write)
	for i, w := range works {
		if r.stopped.Load() {
			return nil
		}
		if int64(w.Block) > r.report.Range {
			continue
		}
		if err := r.row(i, len(works), w); err != nil {
			return err
		}
	}
	return nil
}

// row measures one row and adds its result, also an unfinished one.
func (r *run) row(i, of int, work Work) error {
	r.timed.Store(0)
	for _, w := range r.workers {
		w.begin(work)
	}
	done := make(chan error, 1)
	start := time.Now()
	go func() {
		if work.Write {
			done <- r.writes(work)
		} else {
			done <- r.reads(work, start)
		}
	}()
	tick := time.NewTicker(time.Second / 10)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if r.Progress != nil {
				p := Progress{Row: i, Rows: of, Result: Result{Work: work, Ops: r.ops(), Time: time.Duration(r.timed.Load())}}
				if !work.Write {
					p.Time = time.Since(start)
				}
				r.Progress(p)
			}
		case err := <-done:
			res := Result{Work: work, Ops: r.ops(), Time: time.Duration(r.timed.Load()), Latency: new(latency.Histogram)}
			for _, w := range r.workers {
				res.Latency.Merge(&w.hist)
			}
			if res.Ops > 0 {
				r.report.Results = append(r.report.Results, res)
			}
			return err
		}
	}
}

// ops is the number of operations that the row has done so far.
func (r *run) ops() (n uint64) {
	for _, w := range r.workers {
		n += w.ops.Load()
	}
	return n
}
