package bench

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sealdisk/pkg/latency"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbd/nbdclient"
)

// A batch is what a connection reads before it writes that back: so many blocks, and
// bytes. It is small so that little time passes between reading and writing a block,
// and large against what is under way at the end of a batch, when the queue runs empty.
const (
	batchBlocks = 1024
	batchBytes  = 32 << 20
)

// readBackDepth is how many reads are under way while a batch is read.
const readBackDepth = 16

// maxDepth is how many requests a connection has under way at most.
const maxDepth = 32

// worker drives one connection.
type worker struct {
	run    *run
	conn   *nbdclient.Conn
	rng    *rand.Rand
	blocks uint64                  // of the row's size in the range
	pieces []piece                 // by tag for reads, else a batch
	start  [maxDepth]time.Duration // by tag, since run.began
	hist   latency.Histogram
	ops    atomic.Uint64
}

// piece is a buffer and where on the disk it belongs.
type piece struct {
	buf []byte
	off int64
}

func newWorker(r *run, c *nbdclient.Conn) *worker {
	return &worker{run: r, conn: c, rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
}

// begin prepares a row.
func (w *worker) begin(work Work) {
	w.hist, w.blocks = latency.Histogram{}, uint64(w.run.report.Range)/uint64(work.Block)
	w.ops.Store(0)
	n := work.Depth
	if work.Write {
		n = min(batchBytes/work.Block, batchBlocks)
	}
	w.makePieces(n, work.Block)
}

// makePieces makes n buffers of size bytes.
func (w *worker) makePieces(n, size int) {
	all := make([]byte, n*size)
	w.pieces = w.pieces[:0]
	for i := range n {
		w.pieces = append(w.pieces, piece{buf: all[i*size:][:size]})
	}
}

// place is where the next block of a row is.
func (w *worker) place(work Work) int64 {
	var n uint64
	if work.Random {
		n = w.rng.Uint64N(w.blocks)
	} else {
		n = w.run.cursor.Add(uint64(work.Block)) / uint64(work.Block) % w.blocks
	}
	return int64(n) * int64(work.Block)
}

// loop keeps depth requests under way until next has no more and all are answered. next
// gets the tag of the request and the time. Timed ones are recorded.
func (w *worker) loop(cmd nbd.Command, depth int, timed bool, next func(tag int, now time.Duration) (piece, bool)) error {
	var failed error
	submit := func(tag int, now time.Duration) bool {
		if failed != nil {
			return false
		}
		p, ok := next(tag, now)
		if !ok {
			return false
		}
		w.start[tag] = now
		switch cmd {
		case nbd.CmdRead:
			w.conn.Read(tag, p.buf, p.off)
		case nbd.CmdWrite:
			w.conn.Write(tag, p.buf, p.off)
		case nbd.CmdWriteZeroes:
			w.conn.WriteZeroes(tag, p.off, len(p.buf))
		}
		return true
	}
	for tag := 0; tag < depth && submit(tag, time.Since(w.run.began)); tag++ {
	}
	for w.conn.Under() > 0 {
		rep, err := w.conn.Next()
		if err != nil {
			return err
		}
		now := time.Since(w.run.began)
		if rep.Errno != 0 && failed == nil {
			failed = &RequestError{cmd, rep.Errno}
		}
		if timed && rep.Errno == 0 {
			w.hist.Record(now - w.start[rep.Tag])
			w.ops.Store(w.ops.Load() + 1)
		}
		submit(rep.Tag, now)
	}
	return failed
}

// batch does cmd with each of its pieces once.
func (w *worker) batch(cmd nbd.Command, depth int, timed bool) error {
	i := 0
	return w.loop(cmd, depth, timed, func(int, time.Duration) (piece, bool) {
		if i == len(w.pieces) || w.run.stopped.Load() {
			return piece{}, false
		}
		i++
		return w.pieces[i-1], true
	})
}

// each runs f for every worker at the same time and returns the first error.
func (r *run) each(f func(*worker) error) error {
	errs := make(chan error, len(r.workers))
	var others sync.WaitGroup
	for _, w := range r.workers[1:] {
		others.Go(func() { errs <- f(w) })
	}
	errs <- f(r.workers[0])
	others.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// reads measures a row of reads that began at start.
func (r *run) reads(work Work, start time.Time) error {
	end := start.Sub(r.began) + r.Time
	err := r.each(func(w *worker) error {
		return w.loop(nbd.CmdRead, work.Depth, true, func(tag int, now time.Duration) (piece, bool) {
			if now >= end && w.ops.Load() > 0 || r.stopped.Load() {
				return piece{}, false
			}
			return piece{w.pieces[tag].buf, w.place(work)}, true
		})
	})
	r.timed.Store(int64(time.Since(start)))
	return err
}

// writes measures a row of writes, batch by batch. The workers read together
// and write together, so that what is timed is writes only.
func (r *run) writes(work Work) error {
	for time.Duration(r.timed.Load()) < r.Time {
		err := r.each(func(w *worker) error {
			for i := range w.pieces {
				w.pieces[i].off = w.place(work)
			}
			return w.batch(nbd.CmdRead, readBackDepth, false)
		})
		// Stopped, the batch may not have been read to its end: it must not be written.
		if err != nil || r.stopped.Load() {
			return err
		}
		if err := r.alone(r.ctx); err != nil {
			return err
		}
		start := time.Now()
		err = r.each(func(w *worker) error { return w.batch(nbd.CmdWrite, work.Depth, true) })
		r.timed.Add(int64(time.Since(start)))
		if err != nil {
			return err
		}
	}
	return nil
}
