package blockdevtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"sealdisk/blockdev"
)

// access is what one request did to one granule.
type access struct {
	granule int64
	write   bool
	value   uint64
}

// granuleModel is a register for each granule.
var granuleModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[int64][]porcupine.Operation{}
		for _, op := range history {
			g := op.Input.(access).granule
			by[g] = append(by[g], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range by {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		a := input.(access)
		if a.write {
			return true, a.value
		}
		return output.(uint64) == state.(uint64), state
	},
	DescribeOperation: func(input, output any) string {
		a := input.(access)
		if a.write {
			return fmt.Sprintf("granule %d := %d", a.granule, a.value)
		}
		return fmt.Sprintf("granule %d = %d", a.granule, output)
	},
}

// Linearizable lets the clients, one or more ways to the same device, which
// reads as zeros, work on overlapping ranges at once, each making so many
// requests, and checks that every granule was seen whole and as a register
// would behave.
func Linearizable(t *testing.T, clients []blockdev.Device, seed uint64, requests int, trimZeros bool) {
	t.Helper()
	const span = 12 // granules that all work on, so that they meet
	var mu sync.Mutex
	var history []porcupine.Operation
	var clock atomic.Int64 // any order of calls and returns will do
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for id, d := range clients {
		wg.Go(func() {
			rng := Rand(seed + uint64(id))
			for i := range requests {
				lo := rng.Int64N(span)
				n := 1 + rng.Int64N(span-lo)
				value := uint64(id+1)<<32 | uint64(i+1)
				p := make([]byte, n*granule)
				kind := []Kind{OpRead, OpRead, OpWrite, OpWrite, OpZero, OpPunch}[rng.IntN(6)]
				if kind == OpPunch && !trimZeros {
					kind = OpRead
				}
				call := clock.Add(1)
				var err error
				switch kind {
				case OpRead:
					err = d.ReadAt(p, lo*granule)
				case OpWrite:
					for j := 0; j < len(p); j += 8 {
						binary.LittleEndian.PutUint64(p[j:], value)
					}
					err = d.WriteAt(p, lo*granule, 0)
				case OpZero:
					value = 0
					err = d.WriteZeroes(lo*granule, n*granule, 0)
				case OpPunch:
					value = 0
					err = d.Trim(lo*granule, n*granule, 0)
				}
				ret := clock.Add(1)
				if err != nil {
					errs[id] = err
					return
				}
				mu.Lock()
				for g := range n {
					op := porcupine.Operation{ClientId: id, Call: call, Return: ret,
						Input: access{lo + g, kind != OpRead, value}}
					if kind == OpRead {
						got := p[g*granule : (g+1)*granule]
						v := binary.LittleEndian.Uint64(got)
						if !bytes.Equal(got, bytes.Repeat(got[:8], granule/8)) {
							errs[id] = fmt.Errorf("granule %d was read torn: %x…%x", lo+g, got[:8], got[granule-8:])
						}
						op.Output = v
					}
					history = append(history, op)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	switch porcupine.CheckOperationsTimeout(granuleModel, history, time.Minute) {
	case porcupine.Illegal:
		t.Fatalf("not linearizable (%d accesses to granules)", len(history))
	case porcupine.Unknown:
		t.Fatal("linearizability was not decided within a minute")
	}
}
