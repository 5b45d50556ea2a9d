package nbdserver

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sealdisk/blockdev"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/nbd"
)

// faultEvery is the least time between two log lines about one disk's
// failing requests.
const faultEvery = 10 * time.Second

// disk is what the connections to one export share: its queue of requests that may
// block, the workers that carry them out, and its account of memory. It lives
// while there are connections. Each disk has workers of its own, so that a dead storage
// stops nobody else's.
type disk struct {
	gate  *Gate
	dev   blockdev.Device
	now   blockdev.NowReader // nil if the device is none
	locks *blockdev.RangeLock
	mem   *memory
	acct  *account
	log   *zap.Logger
	limit int // of workers
	refs  int // connections; guarded by Server.mu
	pace  pace

	mu         sync.Mutex
	work       sync.Cond
	head, tail *request // granted requests in order of arrival
	workers    int
	idle       int
	stopped    bool

	faults    atomic.Int64 // failed requests since the last line
	lastFault atomic.Int64 // when that was, Unix nanoseconds
}

func newDisk(e *Export, cfg Config, mem *memory, log *zap.Logger) (*disk, error) {
	acct, err := mem.open()
	if err != nil {
		return nil, err
	}
	d := &disk{
		gate: e.Gate, dev: e.Device, locks: e.Locks, mem: mem, acct: acct,
		log: log.With(logfield.Export(e.Name)), limit: cfg.Workers,
	}
	d.now, _ = e.Device.(blockdev.NowReader)
	d.work.L = &d.mu
	return d, nil
}

// stop ends the workers; the queue is empty, since no connection is left.
func (d *disk) stop() {
	d.mu.Lock()
	d.stopped = true
	d.work.Broadcast()
	d.mu.Unlock()
	d.mem.close(d.acct)
}

// push gives r, whose granules are granted, to the workers. It never blocks.
func (d *disk) push(r *request) {
	r.next = nil
	d.mu.Lock()
	if d.head == nil {
		d.head = r
	} else {
		d.tail.next = r
	}
	d.tail = r
	if d.idle > 0 { // counted off here, so that the next push wakes another
		d.idle--
		d.work.Signal()
	} else if d.workers < d.limit {
		d.workers++
		go d.worker()
	}
	d.mu.Unlock()
}

// worker carries out requests until the disk stops.
func (d *disk) worker() {
	x := newExecutor()
	for {
		d.mu.Lock()
		for d.head == nil {
			if d.stopped {
				d.mu.Unlock()
				return
			}
			d.idle++
			d.work.Wait()
		}
		r := d.head
		d.head = r.next
		d.mu.Unlock()
		r.next = nil
		x.run(r)
	}
}

// fault tells the log why a request failed, since clients only see a number
// and kernels turn each into EIO: one line now and then, with the count of those not told.
func (d *disk) fault(cmd nbd.Command, err error) {
	n := d.faults.Add(1)
	now, last := time.Now().UnixNano(), d.lastFault.Load()
	if last != 0 && now-last < int64(faultEvery) || !d.lastFault.CompareAndSwap(last, now) {
		return
	}
	d.faults.Add(-n)
	d.log.Warn("requests fail", logfield.Op(cmd.String()), logfield.Count(int(n)), logfield.Err(err))
}
