package nbdserver

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

const reads = blockdevtest.OpRead | blockdevtest.OpReadNow

// TestReadWaitsForWrite: a read of a granule that is being written comes
// after the write, on the same connection and on another; a read elsewhere does not wait.
func TestReadWaitsForWrite(t *testing.T) {
	for _, p := range []Path{PathAuto, PathWorker} {
		dev, faults := ram(mib)
		r := newRig(t, Config{Path: p}, dev)
		a, b := r.connect(false), r.connect(true)
		gate := blockdevtest.NewGate()
		faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpHalf, Times: 1, Gate: gate})
		want := pattern(8192, 5)
		write := a.Start(nbd.CmdWrite, 0, 4096, 0, want)
		gate.Arrived() // half of it is stored
		var calls []*nbdtest.Call
		for _, c := range []*nbdtest.Client{a, b} {
			calls = append(calls, c.Start(nbd.CmdRead, 0, 4096, 8192, nil))
			// The last byte of it is enough.
			calls = append(calls, c.Start(nbd.CmdRead, 0, 4096+8191, 600, nil))
			if _, err := c.Do(nbd.CmdRead, 0, 4096+8192, 512, nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := faults.Count(reads); n != 2 {
			t.Errorf("path %d: %d reads reached the device during the write, want the 2 elsewhere", p, n)
		}
		gate.Open()
		if err := write.Wait(); err != nil {
			t.Fatal(err)
		}
		for i, c := range calls {
			if err := c.Wait(); err != nil {
				t.Fatal(err)
			}
			if w := want[i%2*8191:]; !bytes.Equal(c.Data[:min(len(w), len(c.Data))], w) {
				t.Errorf("path %d: read %d saw something else than the write", p, i)
			}
		}
	}
}

// TestArrivalOrder: changes of one granule happen in the order in which they arrived,
// though a worker is free for each.
func TestArrivalOrder(t *testing.T) {
	dev, faults := ram(mib)
	r := newRig(t, Config{}, dev)
	c := r.connect(false)
	gate := blockdevtest.NewGate()
	faults.Add(blockdevtest.Rule{Kinds: blockdevtest.OpWrite, Times: 1, Gate: gate})
	var calls []*nbdtest.Call
	for i := range 50 {
		calls = append(calls, c.Start(nbd.CmdWrite, 0, 0, 0, pattern(4096, byte(i))))
		calls = append(calls, c.Start(nbd.CmdRead, 0, 0, 4096, nil))
		if i%5 == 0 {
			calls = append(calls, c.Start(nbd.CmdTrim, 0, 512, 512, nil), c.Start(nbd.CmdRead, 0, 0, 4096, nil))
		}
	}
	gate.Arrived()
	gate.Open()
	want := make([]byte, 4096)
	i := 0
	next := func() *nbdtest.Call {
		call := calls[0]
		calls = calls[1:]
		if err := call.Wait(); err != nil {
			t.Fatal(err)
		}
		return call
	}
	for ; i < 50; i++ {
		next()
		copy(want, pattern(4096, byte(i)))
		if got := next().Data; !bytes.Equal(got, want) {
			t.Fatalf("read after write %d saw another", i)
		}
		if i%5 == 0 {
			next()
			clear(want[512:1024])
			if got := next().Data; !bytes.Equal(got, want) {
				t.Fatalf("read after trim %d saw something else", i)
			}
		}
	}
}

// TestReplyAfterTheDeed: no reply before the device is done, a flush's and the last part of a
// write's with FUA among them.
func TestReplyAfterTheDeed(t *testing.T) {
	for name, c := range map[string]struct {
		cmd    nbd.Command
		flags  nbd.CommandFlags
		length uint32
		kind   blockdevtest.Kind
	}{
		"flush":               {nbd.CmdFlush, 0, 0, blockdevtest.OpSync},
		"write FUA":           {nbd.CmdWrite, nbd.FlagFUA, 4096, blockdevtest.OpHalf},
		"write FUA in pieces": {nbd.CmdWrite, nbd.FlagFUA, blockSize + 1, blockdevtest.OpSync},
		"trim":                {nbd.CmdTrim, 0, 4096, blockdevtest.OpPunch},
		"zeroes":              {nbd.CmdWriteZeroes, 0, 4096, blockdevtest.OpZero},
	} {
		t.Run(name, func(t *testing.T) {
			dev, faults := ram(2 * mib)
			cl := newRig(t, Config{}, dev).connect(true)
			gate := blockdevtest.NewGate()
			faults.Add(blockdevtest.Rule{Kinds: c.kind, Gate: gate})
			call := cl.Start(c.cmd, c.flags, 0, c.length, make([]byte, c.length))
			gate.Arrived()
			for range 20 { // replies to these would come behind it
				if _, err := cl.Do(nbd.CmdRead, 0, mib, 512, nil); err != nil {
					t.Fatal(err)
				}
			}
			if call.Done() {
				t.Error("the reply came while the device was at work")
			}
			gate.Open()
			if err := call.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// flagged remembers the flags and order of what reaches a device.
type flagged struct {
	blockdev.Device
	mu  sync.Mutex
	log []string
}

func (d *flagged) note(what string, f blockdev.Flags) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, name := range []string{"FUA", "NO_HOLE", "FAST_ZERO"} {
		if f&(1<<i) != 0 {
			what += " " + name
		}
	}
	d.log = append(d.log, what)
}

func (d *flagged) take() (s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, l := range d.log {
		if i > 0 {
			s += ", "
		}
		s += l
	}
	d.log = nil
	return s
}

func (d *flagged) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	d.note("write", f)
	return d.Device.WriteAt(p, off, f)
}

func (d *flagged) Trim(off, n int64, f blockdev.Flags) error {
	d.note("trim", f)
	return d.Device.Trim(off, n, f)
}

func (d *flagged) WriteZeroes(off, n int64, f blockdev.Flags) error {
	d.note("zeroes", f)
	return d.Device.WriteZeroes(off, n, f)
}

func (d *flagged) Flush() error {
	d.note("flush", 0)
	return d.Device.Flush()
}

// TestFlags: what the client asked for is what the device is asked for.
func TestFlags(t *testing.T) {
	dev, _ := ram(64 * mib)
	d := &flagged{Device: dev}
	c := newRig(t, Config{}, d).connect(true)
	for name, q := range map[string]struct {
		cmd    nbd.Command
		flags  nbd.CommandFlags
		off    uint64
		length uint32
		want   string
	}{
		"write":                         {nbd.CmdWrite, 0, 0, 4096, "write"},
		"write FUA":                     {nbd.CmdWrite, nbd.FlagFUA, 0, blockSize, "write FUA"},
		"write FUA in pieces":           {nbd.CmdWrite, nbd.FlagFUA, 0, 2*blockSize + 1, "write, write, write, flush"},
		"unaligned write FUA in pieces": {nbd.CmdWrite, nbd.FlagFUA, 4095, blockSize, "write, write, flush"},
		"trim":                          {nbd.CmdTrim, 0, 0, 60 * mib, "trim"},
		"trim FUA":                      {nbd.CmdTrim, nbd.FlagFUA, 0, 4096, "trim FUA"},
		"zeroes":                        {nbd.CmdWriteZeroes, 0, 0, 60 * mib, "zeroes"},
		"zeroes with everything":        {nbd.CmdWriteZeroes, nbd.FlagFUA | nbd.FlagNoHole | nbd.FlagFastZero, 0, 4096, "zeroes FUA NO_HOLE FAST_ZERO"},
		"flush":                         {nbd.CmdFlush, 0, 0, 0, "flush"},
		"flush FUA":                     {nbd.CmdFlush, nbd.FlagFUA, 0, 0, "flush"},
		"read FUA":                      {nbd.CmdRead, nbd.FlagFUA, 0, 512, ""},
		"cache FUA":                     {nbd.CmdCache, nbd.FlagFUA, 0, 60 * mib, ""},
		"status FUA":                    {nbd.CmdBlockStatus, nbd.FlagFUA, 0, 512, ""},
	} {
		var data []byte
		if q.cmd == nbd.CmdWrite {
			data = make([]byte, q.length)
		}
		if _, err := c.Do(q.cmd, q.flags, q.off, q.length, data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := d.take(); got != q.want {
			t.Errorf("%s: the device saw %q, want %q", name, got, q.want)
		}
	}
}

// sparse has extents as a test says.
type sparse struct {
	blockdev.Device
	extents []blockdev.Extent
	err     error
	max     atomic.Int32 // of the last call
}

func (d *sparse) Extents(dst []blockdev.Extent, _, _ int64, max int) ([]blockdev.Extent, error) {
	d.max.Store(int32(max))
	return append(dst, d.extents[:min(max, len(d.extents))]...), d.err
}

func TestBlockStatus(t *testing.T) {
	const g = 1 << 30
	hole := func(off, n int64) blockdev.Extent { return blockdev.Extent{Off: off, Len: n, Hole: true, Zero: true} }
	data := func(off, n int64) blockdev.Extent { return blockdev.Extent{Off: off, Len: n} }
	zero := func(off, n int64) blockdev.Extent { return blockdev.Extent{Off: off, Len: n, Zero: true} }
	e := func(n, state uint32) nbdtest.Extent { return nbdtest.Extent{Len: n, State: state} }
	var many []blockdev.Extent
	var manyWant []nbdtest.Extent
	for i := range int64(2 * maxExtents) {
		many = append(many, []blockdev.Extent{hole(i*512, 512), data(i*512, 512)}[i%2])
		if i < maxExtents {
			manyWant = append(manyWant, e(512, uint32(3-i%2*3)))
		}
	}
	for name, c := range map[string]struct {
		extents []blockdev.Extent
		flags   nbd.CommandFlags
		off     uint64
		length  uint32
		want    []nbdtest.Extent
	}{
		"each state":               {[]blockdev.Extent{hole(0, 512), data(512, 512), zero(1024, 512)}, 0, 0, 1536, []nbdtest.Extent{e(512, 3), e(512, 0), e(512, 2)}},
		"one wanted":               {[]blockdev.Extent{hole(0, 512), data(512, 512)}, nbd.FlagReqOne, 0, 1024, []nbdtest.Extent{e(512, 3)}},
		"one, longer than asked":   {[]blockdev.Extent{data(0, g)}, nbd.FlagReqOne, 100, 512, []nbdtest.Extent{e(512, 0)}},
		"equal neighbours":         {[]blockdev.Extent{data(0, 512), data(512, 512), hole(1024, 512), hole(1536, 512)}, 0, 0, 2048, []nbdtest.Extent{e(1024, 0), e(1024, 3)}},
		"more than asked":          {[]blockdev.Extent{data(0, 1024), hole(1024, g)}, 0, 512, 1024, []nbdtest.Extent{e(512, 0), e(512, 3)}},
		"fewer than asked":         {[]blockdev.Extent{hole(0, 512)}, 0, 0, 4096, []nbdtest.Extent{e(512, 3)}},
		"nothing to say":           {nil, 0, 0, 4096, []nbdtest.Extent{e(4096, 0)}},
		"nearly 4 GiB":             {[]blockdev.Extent{hole(0, 2*g), hole(2*g, 3*g)}, 0, 0, 1<<32 - 512, []nbdtest.Extent{e(1<<32-512, 3)}},
		"more than the reply hold": {many, 0, 0, 1 << 20, manyWant},
	} {
		t.Run(name, func(t *testing.T) {
			dev, _ := ram(mib)
			d := &sparse{Device: &sized{dev, 5 * g}, extents: c.extents}
			call, err := newRig(t, Config{}, d).connect(true).Do(nbd.CmdBlockStatus, c.flags, c.off, c.length, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(call.Extents) != len(c.want) {
				t.Fatalf("%v, want %v", call.Extents, c.want)
			}
			for i, got := range call.Extents {
				if got != c.want[i] {
					t.Errorf("extent %d: %v, want %v", i, got, c.want[i])
				}
			}
			if c.flags&nbd.FlagReqOne != 0 && d.max.Load() != 1 {
				t.Errorf("the device was asked for %d extents", d.max.Load())
			}
		})
	}
}

// sized says it is larger than it is.
type sized struct {
	blockdev.Device
	size int64
}

func (d *sized) Size() int64 { return d.size }

// TestMetaContextIsBound: a context counts for the export it was selected for and until a SET
// replaces it, failed ones included.
func TestMetaContextIsBound(t *testing.T) {
	set := func(name string, queries ...string) []byte { return nbdtest.MetaData(name, queries...) }
	for name, c := range map[string]struct {
		sets [][]byte
		want error
	}{
		"selected":                 {[][]byte{set("disk", "base:allocation")}, nil},
		"not selected":             {nil, nbd.EINVAL},
		"for another export":       {[][]byte{set("other", "base:allocation")}, nbd.EINVAL},
		"replaced by nothing":      {[][]byte{set("disk", "base:allocation"), set("disk")}, nbd.EINVAL},
		"replaced by unknown ones": {[][]byte{set("disk", "base:allocation"), set("disk", "x:y")}, nbd.EINVAL},
		"cleared by a failure":     {[][]byte{set("disk", "base:allocation"), set("nothing", "base:allocation")}, nbd.EINVAL},
		"cleared by bad data":      {[][]byte{set("disk", "base:allocation"), {1}}, nbd.EINVAL},
		"selected again":           {[][]byte{set("nothing", "base:allocation"), set("disk", "x:y", "base:allocation")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dev, _ := ram(mib)
			r := newRig(t, Config{}, dev)
			r.table.add(newExport("other", dev))
			raw := r.greet()
			if _, err := raw.Ask(nbd.OptStructuredReply, nil); err != nil {
				t.Fatal(err)
			}
			for _, s := range c.sets {
				if _, err := raw.Ask(nbd.OptSetMetaContext, s); err != nil {
					t.Fatal(err)
				}
			}
			if all, err := raw.Ask(nbd.OptGo, nbdtest.InfoData("disk")); err != nil {
				t.Fatal(told(all), err)
			}
			cl := nbdtest.NewClient(raw.UnixConn, mib, 0, nbdtest.Features{Structured: true})
			if _, err := cl.Do(nbd.CmdBlockStatus, 0, 0, 4096, nil); err != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}
