package blockdevtest

import (
	"fmt"
	"math/rand/v2"

	"sealdisk/blockdev"
)

// step is one request of a random schedule.
type step struct {
	kind     Kind // OpRead, OpWrite, OpPunch, OpZero or OpSync
	off, len int64
	flags    blockdev.Flags
	data     []byte
}

func (s step) String() string {
	return fmt.Sprintf("%s [%d,+%d) flags %#x", map[Kind]string{OpRead: "read", OpWrite: "write",
		OpPunch: "trim", OpZero: "zeroes", OpSync: "flush"}[s.kind], s.off, s.len, s.flags)
}

// randomStep makes a request within [0, size): of any alignment, most often
// small and in the same places, so that requests meet.
func randomStep(rng *rand.Rand, size int64) step {
	var s step
	switch n := rng.IntN(20); {
	case n < 4:
		s.kind = OpRead
	case n < 12:
		s.kind = OpWrite
	case n < 14:
		s.kind = OpPunch
	case n < 17:
		s.kind = OpZero
	default:
		return step{kind: OpSync}
	}
	s.off, s.len = randomRange(rng, size)
	if s.kind != OpRead && rng.IntN(5) == 0 {
		s.flags |= blockdev.FUA
	}
	switch s.kind {
	case OpZero:
		if rng.IntN(4) == 0 {
			s.flags |= blockdev.NoHole
		}
		if rng.IntN(4) == 0 {
			s.flags |= blockdev.FastZero
		}
	case OpWrite:
		s.data = make([]byte, s.len)
		if rng.IntN(8) > 0 { // else zeros are written
			fill(s.data, rng)
		}
	}
	return s
}

// randomRange is a range of 1 to about 20000 bytes within [0, size).
func randomRange(rng *rand.Rand, size int64) (off, length int64) {
	most := min(size, []int64{granule, 3 * granule, 4096, 20000}[rng.IntN(4)])
	length = 1 + rng.Int64N(most)
	off = rng.Int64N(size - length + 1)
	switch unit := []int64{1, granule, 4096}[rng.IntN(3)]; {
	case length >= unit:
		off, length = off/unit*unit, length/unit*unit
	default:
		off = off / unit * unit
	}
	return off, min(length, size-off)
}

// do runs the step on d. What was read is in s.data.
func (s *step) do(d blockdev.Device) error {
	switch s.kind {
	case OpRead:
		s.data = make([]byte, s.len)
		return d.ReadAt(s.data, s.off)
	case OpWrite:
		return d.WriteAt(append([]byte(nil), s.data...), s.off, s.flags)
	case OpPunch:
		return d.Trim(s.off, s.len, s.flags)
	case OpZero:
		return d.WriteZeroes(s.off, s.len, s.flags)
	}
	return d.Flush()
}
