package nbdserver

import (
	"runtime"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/blockdev/blockdevtest"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// overNBD serves dev and returns it as seen by n connections.
func overNBD(t testing.TB, cfg Config, dev blockdev.Device, n int) blockdev.Device {
	t.Helper()
	r := newRig(t, cfg, dev)
	var clients []*nbdtest.Client
	for range n {
		clients = append(clients, r.connect(true))
	}
	return nbdtest.NewDevice(clients...)
}

// TestConformance: a disk over NBD is a block device like any other.
func TestConformance(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		blockdevtest.Conformance{
			Open: func(t testing.TB, size int64) blockdev.Device {
				dev, _ := ram(size)
				return overNBD(t, cfg, dev, 3)
			},
			TrimZeros: true, FastZero: true, FastNoHole: true, Serialized: true,
		}.Run(t)
	})
}

// halting lets others run in the middle of each write.
type halting struct{ *blockdevtest.RAM }

func (d halting) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	half := len(p) / 2
	if err := d.RAM.WriteAt(p[:half], off, f); err != nil {
		return err
	}
	for range 3 {
		runtime.Gosched()
	}
	return d.RAM.WriteAt(p[half:], off+int64(half), f)
}

// TestLinearizable: every granule behaves as a register, whichever
// connections use it, and is never seen torn.
func TestLinearizable(t *testing.T) {
	seed := blockdevtest.Seed(t, 1)
	paths(t, func(t *testing.T, cfg Config) {
		for round := range uint64(6) {
			dev, _ := ram(64 * kib)
			r := newRig(t, cfg, halting{dev})
			var clients []blockdev.Device
			for i := range 6 { // two goroutines on each of three connections
				if i%2 == 0 {
					clients = append(clients, nbdtest.NewDevice(r.connect(i%4 == 0)))
				} else {
					clients = append(clients, clients[i-1])
				}
			}
			blockdevtest.Linearizable(t, clients, seed+100*round, 150, true)
			r.stop()
		}
	})
}
