//go:build linux

package xts

import (
	"bytes"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Signals that come all the time, as those by which the runtime pre-empts, and
// collections beside them, change nothing: what a call has in registers comes
// back.
func TestStormOfSignals(t *testing.T) {
	r := random(70)
	key := randomBytes(r, 64)
	c, ref := newCipher(t, key), newReference(t, key)
	src := randomBytes(r, 64<<10)
	want := map[int][]byte{}
	for _, sectorSize := range []int{512, 4096} {
		want[sectorSize] = reference(ref, src, sectorSize, 512, encrypt)
	}
	eachTier(t, func(t *testing.T) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		pid, tid := os.Getpid(), unix.Gettid()
		stop := make(chan struct{})
		var storm sync.WaitGroup
		var sent atomic.Int64
		storm.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := unix.Tgkill(pid, tid, unix.SIGURG); err != nil {
					t.Error("tgkill:", err)
				}
				if sent.Add(1)%256 == 0 {
					runtime.GC()
				}
			}
		})
		calls := 400
		if Tier() == "generic" {
			calls = 4
		}
		got := make([]byte, len(src))
		for n := 0; n < calls || sent.Load() < 256; n++ {
			for _, sectorSize := range []int{512, 4096} {
				c.Encrypt(got, src, sectorSize, 512)
				if !bytes.Equal(got, want[sectorSize]) {
					t.Errorf("sector %d: wrong ciphertext at byte %d", sectorSize, firstDifference(got, want[sectorSize]))
				}
				c.Decrypt(got, got, sectorSize, 512)
				if !bytes.Equal(got, src) {
					t.Errorf("sector %d: wrong plaintext at byte %d", sectorSize, firstDifference(got, src))
				}
			}
		}
		close(stop)
		storm.Wait()
	})
}
