package nbdserver

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// TestValidation: each bad request gets its error, and the connection goes on.
func TestValidation(t *testing.T) {
	const size = 64 * mib
	type bad struct {
		cmd    nbd.Command
		flags  nbd.CommandFlags
		off    uint64
		length uint32
		want   nbd.Errno
	}
	for name, b := range map[string]bad{
		"read at the end":             {nbd.CmdRead, 0, size, 1, nbd.EINVAL},
		"read past the end":           {nbd.CmdRead, 0, size - 1, 2, nbd.EINVAL},
		"read at 2^63":                {nbd.CmdRead, 0, 1 << 63, 512, nbd.EINVAL},
		"read that overflows":         {nbd.CmdRead, 0, ^uint64(0), 512, nbd.EINVAL},
		"read of nothing":             {nbd.CmdRead, 0, 0, 0, nbd.EINVAL},
		"read above 32 MiB":           {nbd.CmdRead, 0, 0, nbd.MaxPayload + 1, nbd.EINVAL},
		"read with NO_HOLE":           {nbd.CmdRead, nbd.FlagNoHole, 0, 512, nbd.EINVAL},
		"read with an unknown flag":   {nbd.CmdRead, 1 << 15, 0, 512, nbd.EINVAL},
		"write past the end":          {nbd.CmdWrite, 0, size - 511, 512, nbd.ENOSPC},
		"write at the end of numbers": {nbd.CmdWrite, 0, ^uint64(0) - 511, 512, nbd.ENOSPC},
		"write of nothing":            {nbd.CmdWrite, 0, 0, 0, nbd.EINVAL},
		"write above 32 MiB":          {nbd.CmdWrite, 0, 0, nbd.MaxPayload + 4096, nbd.EINVAL},
		"write with DF":               {nbd.CmdWrite, nbd.FlagDF, 0, 512, nbd.EINVAL},
		"trim past the end":           {nbd.CmdTrim, 0, size - 512, 1024, nbd.EINVAL},
		"trim of nothing":             {nbd.CmdTrim, 0, 0, 0, nbd.EINVAL},
		"trim with FAST_ZERO":         {nbd.CmdTrim, nbd.FlagFastZero, 0, 512, nbd.EINVAL},
		"zeroes past the end":         {nbd.CmdWriteZeroes, 0, size - 512, 4 << 20, nbd.ENOSPC},
		"zeroes of nothing":           {nbd.CmdWriteZeroes, 0, 0, 0, nbd.EINVAL},
		"zeroes with REQ_ONE":         {nbd.CmdWriteZeroes, nbd.FlagReqOne, 0, 512, nbd.EINVAL},
		"status past the end":         {nbd.CmdBlockStatus, 0, 0, size + 1, nbd.EINVAL},
		"status of nothing":           {nbd.CmdBlockStatus, 0, 0, 0, nbd.EINVAL},
		"cache past the end":          {nbd.CmdCache, 0, size, 512, nbd.EINVAL},
		"cache of nothing":            {nbd.CmdCache, 0, 0, 0, nbd.EINVAL},
		"flush of a range":            {nbd.CmdFlush, 0, 0, 512, nbd.EINVAL},
		"flush at an offset":          {nbd.CmdFlush, 0, 512, 0, nbd.EINVAL},
		"resize":                      {nbd.CmdResize, 0, 0, 512, nbd.EINVAL},
		"unknown command":             {0x7777, 0, 0, 512, nbd.EINVAL},
	} {
		for _, structured := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/structured %v", name, structured), func(t *testing.T) {
				dev, faults := ram(size)
				c := newRig(t, Config{}, dev).connect(structured)
				var data []byte
				if b.cmd == nbd.CmdWrite {
					data = make([]byte, b.length)
				}
				opened := faults.Count(^blockdevtest.Kind(0))
				if _, err := c.Do(b.cmd, b.flags, b.off, b.length, data); err != b.want {
					t.Errorf("%v, want %v", err, b.want)
				}
				if n := faults.Count(^blockdevtest.Kind(0)) - opened; n != 0 {
					t.Errorf("the device saw %d operations", n)
				}
				if err := c.Start(nbd.CmdWrite, 0, 512, 0, pattern(512, 3)).Wait(); err != nil {
					t.Fatalf("the next request: %v", err)
				}
				if call, err := c.Do(nbd.CmdRead, 0, 512, 512, nil); err != nil || !bytes.Equal(call.Data, pattern(512, 3)) {
					t.Errorf("the next read: %v", err)
				}
			})
		}
	}
}

func TestReadOnly(t *testing.T) {
	dev, _ := ram(mib)
	r := newRig(t, Config{}, dev)
	r.export.ReadOnly = true
	c := r.connect(true)
	for _, cmd := range []nbd.Command{nbd.CmdWrite, nbd.CmdTrim, nbd.CmdWriteZeroes} {
		if _, err := c.Do(cmd, 0, 0, 512, make([]byte, 512)); err != nbd.EPERM {
			t.Errorf("%v: %v", cmd, err)
		}
	}
	for _, cmd := range []nbd.Command{nbd.CmdRead, nbd.CmdCache, nbd.CmdBlockStatus} {
		if _, err := c.Do(cmd, 0, 0, 512, nil); err != nil {
			t.Errorf("%v: %v", cmd, err)
		}
	}
	if _, err := c.Do(nbd.CmdFlush, 0, 0, 0, nil); err != nil {
		t.Error(err)
	}
}

// TestWithoutStructuredReplies: what needs them is refused.
func TestWithoutStructuredReplies(t *testing.T) {
	dev, _ := ram(mib)
	c := newRig(t, Config{}, dev).connect(false)
	if _, err := c.Do(nbd.CmdRead, nbd.FlagDF, 0, 512, nil); err != nbd.EINVAL {
		t.Errorf("READ with DF: %v", err)
	}
	if _, err := c.Do(nbd.CmdBlockStatus, 0, 0, 512, nil); err != nbd.EINVAL {
		t.Errorf("BLOCK_STATUS: %v", err)
	}
}

// TestDeviceErrors: every error of a device is a reply, with nothing after it.
func TestDeviceErrors(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("doing something: %w", err) }
	for name, c := range map[string]struct {
		err  error
		want nbd.Errno
	}{
		"full":         {blockdev.ErrNoSpace, nbd.ENOSPC},
		"ENOSPC":       {syscall.ENOSPC, nbd.ENOSPC},
		"quota":        {wrap(syscall.EDQUOT), nbd.ENOSPC},
		"too large":    {syscall.EFBIG, nbd.ENOSPC},
		"read-only":    {wrap(blockdev.ErrReadOnly), nbd.EPERM},
		"input/output": {wrap(blockdev.ErrIO), nbd.EIO},
		"lost sync":    {blockdev.ErrSyncFailed, nbd.EIO},
		"unsupported":  {wrap(blockdev.ErrNotSupported), nbd.ENOTSUP},
		"closed":       {blockdev.ErrClosed, nbd.ESHUTDOWN},
		"unknown":      {errors.New("whatever"), nbd.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			paths(t, func(t *testing.T, cfg Config) {
				dev, faults := ram(mib)
				r := newRig(t, cfg, dev)
				faults.Add(blockdevtest.Rule{Err: c.err})
				for _, cl := range []*nbdtest.Client{r.connect(false), r.connect(true)} {
					for _, cmd := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite, nbd.CmdTrim, nbd.CmdWriteZeroes, nbd.CmdCache} {
						if _, err := cl.Do(cmd, 0, 4096, 8192, make([]byte, 8192)); err != c.want {
							t.Errorf("%v: %v, want %v", cmd, err, c.want)
						}
					}
					if _, err := cl.Do(nbd.CmdFlush, 0, 0, 0, nil); err != c.want {
						t.Errorf("FLUSH: %v, want %v", err, c.want)
					}
				}
			})
		})
	}
	for cmd, want := range map[nbd.Command]nbd.Errno{nbd.CmdWrite: nbd.ENOSPC, nbd.CmdWriteZeroes: nbd.ENOSPC, nbd.CmdRead: nbd.EINVAL, nbd.CmdTrim: nbd.EINVAL} {
		if got := errnoOf(cmd, wrap(blockdev.ErrOutOfRange)); got != want {
			t.Errorf("out of range for %v: %v, want %v", cmd, got, want)
		}
	}
}

// TestBadMagic: the one thing in the transmission that only closing answers.
func TestBadMagic(t *testing.T) {
	dev, _ := ram(mib)
	c := newRig(t, Config{}, dev).connect(true)
	b := nbdtest.Request(nbd.CmdRead, 0, 1, 0, 512, nil)
	b[0]++
	if _, err := c.Conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := c.Closed(); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// TestFragments: requests arrive cut at every byte, or many in one piece.
func TestFragments(t *testing.T) {
	dev, _ := ram(mib)
	raw := newRig(t, Config{}, dev).greet()
	if all, err := raw.Ask(nbd.OptGo, nbdtest.InfoData("disk")); err != nil {
		t.Fatal(told(all), err)
	}
	stream := nbdtest.Request(nbd.CmdWrite, 0, 1, 100, 700, pattern(700, 1))
	stream = append(stream, nbdtest.Request(nbd.CmdRead, 0, 2, 100, 700, nil)...)
	for cut := 1; cut < len(stream); cut += 7 {
		for _, part := range [][]byte{stream[:cut], stream[cut:]} {
			if _, err := raw.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		b, err := raw.Bytes(16 + 16 + 700)
		if err != nil {
			t.Fatal(err)
		}
		write, read, data := b[:16], b[16:32], b[32:]
		if nbd.GetSimpleReply(b).Handle == 2 { // replies come in any order
			read, data, write = b[:16], b[16:716], b[716:]
		}
		w, r := nbd.GetSimpleReply(write), nbd.GetSimpleReply(read)
		if w.Handle != 1 || r.Handle != 2 || w.Error|r.Error != 0 || !bytes.Equal(data, pattern(700, 1)) {
			t.Fatalf("cut at %d: %+v %+v", cut, w, r)
		}
	}
}

// TestSizes: payloads around every size that matters to the server.
func TestSizes(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		dev, _ := ram(80 * mib)
		r := newRig(t, cfg, dev)
		for i, c := range []*nbdtest.Client{r.connect(false), r.connect(true)} {
			for _, n := range []int{1, 511, 512, 4096, 4097, shortRequest, shortRequest + 1, 512 * kib, 512*kib + 1, inputSize - 28, inputSize, blockSize, blockSize + 1, 3*blockSize + 5, 32 * mib} {
				for _, off := range []uint64{0, 70001} {
					data := pattern(n, byte(n)+byte(off)+byte(i))
					if _, err := c.Do(nbd.CmdWrite, 0, off, 0, data); err != nil {
						t.Fatalf("write %d at %d: %v", n, off, err)
					}
					call, err := c.Do(nbd.CmdRead, 0, off, uint32(n), nil)
					if err != nil || !bytes.Equal(call.Data, data) {
						t.Fatalf("read %d at %d: %v", n, off, err)
					}
				}
			}
		}
	})
}
