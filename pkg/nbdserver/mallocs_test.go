//go:build !race

package nbdserver

import (
	"io"
	"runtime"
	"sync"
	"testing"

	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// mixed is a run of n requests of all kinds, and the size of their replies
// on a connection with structured replies, in bytes.
func mixed(n int, disk int64, seed uint64) (b []byte, replies int) {
	rng := blockdevtest.Rand(seed)
	for i := range n {
		cmd := []nbd.Command{nbd.CmdRead, nbd.CmdRead, nbd.CmdRead, nbd.CmdWrite, nbd.CmdWrite, nbd.CmdFlush, nbd.CmdTrim, nbd.CmdWriteZeroes, nbd.CmdCache, nbd.CmdBlockStatus}[rng.IntN(10)]
		length := []uint32{512, 4096, 4096, 4096, 8192}[rng.IntN(5)]
		off := uint64(rng.Int64N(disk-8192)) &^ 511
		flags := nbd.FlagFUA * nbd.CommandFlags(rng.IntN(2))
		replies += nbd.SimpleReplySize
		switch cmd {
		case nbd.CmdRead:
			replies += int(length) + nbd.ChunkHeaderSize + nbd.ChunkOffsetSize - nbd.SimpleReplySize
		case nbd.CmdFlush:
			off, length = 0, 0
		case nbd.CmdBlockStatus:
			replies += nbd.ChunkHeaderSize + nbd.ContextIDSize + nbd.DescriptorSize - nbd.SimpleReplySize
		}
		var data []byte
		if cmd == nbd.CmdWrite {
			data = make([]byte, length)
		}
		b = append(b, nbdtest.Request(cmd, flags, uint64(i), off, length, data)...)
	}
	return b, replies
}

// TestMallocs: a million requests of all kinds, over two connections, cost
// next to no allocation, in the server and this client together.
func TestMallocs(t *testing.T) {
	const disk, batch, rounds, conns = 8 * mib, 1000, 500, 2
	for name, p := range map[string]Path{"auto": PathAuto, "worker": PathWorker} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Config{Path: p}, blockdevtest.NewRAM(disk, nil))
			type client struct {
				c       *nbdtest.Raw
				b, sink []byte
			}
			var clients []client
			for i := range conns {
				raw := r.greet()
				for _, o := range []struct {
					opt  nbd.Option
					data []byte
				}{
					{nbd.OptStructuredReply, nil},
					{nbd.OptSetMetaContext, nbdtest.MetaData("disk", nbd.ContextAllocation)},
					{nbd.OptGo, nbdtest.InfoData("disk")},
				} {
					if _, err := raw.Ask(o.opt, o.data); err != nil {
						t.Fatal(err)
					}
				}
				b, n := mixed(batch, disk, uint64(i))
				clients = append(clients, client{raw, b, make([]byte, n)})
			}
			run := func(rounds int) {
				var wg sync.WaitGroup
				for _, c := range clients {
					wg.Add(2)
					go func() {
						defer wg.Done()
						for range rounds {
							if _, err := c.c.Write(c.b); err != nil {
								t.Error(err)
								return
							}
						}
					}()
					go func() {
						defer wg.Done()
						for range rounds {
							if _, err := io.ReadFull(c.c, c.sink); err != nil {
								t.Error(err)
								return
							}
						}
					}()
				}
				wg.Wait()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			run(rounds)
			runtime.ReadMemStats(&after)
			n := after.Mallocs - before.Mallocs
			t.Logf("%d mallocs, %d bytes for %d requests", n, after.TotalAlloc-before.TotalAlloc, conns*batch*rounds)
			if n >= 1000 {
				t.Errorf("%d mallocs for %d requests", n, conns*batch*rounds)
			}
		})
	}
}
