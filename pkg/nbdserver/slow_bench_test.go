package nbdserver

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// slowDisk takes a millisecond for each read and write.
type slowDisk struct{ blockdev.Device }

// wait keeps its thread in a system call, as storage does.
func (slowDisk) wait() {
	ts := unix.NsecToTimespec(int64(time.Millisecond))
	unix.Nanosleep(&ts, nil)
}

func (d slowDisk) ReadAt(p []byte, off int64) error {
	d.wait()
	return d.Device.ReadAt(p, off)
}

func (d slowDisk) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	d.wait()
	return d.Device.WriteAt(p, off, f)
}

// BenchmarkSlowStorage: over one connection, 32 requests at a time are to be
// 32 times as many as one at a time.
func BenchmarkSlowStorage(b *testing.B) {
	for _, cmd := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite} {
		one := 0.0
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("%v/QD%d", cmd, depth), func(b *testing.B) {
				r := newRig(b, Config{}, slowDisk{blockdevtest.NewRAM(mib, nil)})
				c := r.connect(true)
				data := make([]byte, 4096)
				calls := make([]*nbdtest.Call, depth)
				b.ResetTimer()
				for i := range b.N {
					k := i % depth
					if calls[k] != nil {
						if err := calls[k].Wait(); err != nil {
							b.Fatal(err)
						}
					}
					calls[k] = c.Start(cmd, 0, uint64(k)*4096, 4096, data)
				}
				for _, call := range calls {
					if call != nil {
						if err := call.Wait(); err != nil {
							b.Fatal(err)
						}
					}
				}
				rate := float64(b.N) / b.Elapsed().Seconds()
				if depth == 1 {
					one = rate
				}
				b.ReportMetric(rate/one, "times-QD1")
			})
		}
	}
}
