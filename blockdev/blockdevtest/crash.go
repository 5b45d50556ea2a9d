package blockdevtest

import "math/rand/v2"

// Outcomes are all contents that a power cut at one point may leave.
type Outcomes struct {
	size    int
	sectors [][]version // by sector, oldest first; [0] is the oldest that may be there
}

// version is what a sector held after an event.
type version struct {
	at   int // the event; -1 is before the first
	data []byte
}

// Crash returns what may be on the disk when the power is cut after the first
// pos events (see Pos).
func (r *Recorder) Crash(pos int) *Outcomes {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.alloc)
	o := &Outcomes{size: len(r.data), sectors: make([][]version, n)}
	lost := make([]int, n) // versions before this event never reach the disk by a sync
	data := append([]byte(nil), r.initial...)
	for s := range o.sectors {
		o.sectors[s] = []version{{-1, sector(data, s)}}
	}
	for i, e := range r.log[:pos] {
		switch e.kind {
		case evChange:
			apply(data, e)
			for s := int(e.off / TornUnit); int64(s)*TornUnit < e.off+e.n; s++ {
				o.sectors[s] = append(o.sectors[s], version{i, sector(data, s)})
			}
		case evDurable:
			w := r.log[e.ref]
			o.durable(w.off, w.n, e.ref+1, lost)
		case evSynced:
			o.durable(e.off, e.n, e.ref, lost)
		case evLost:
			for s := int(e.off / TornUnit); int64(s)*TornUnit < e.off+e.n; s++ {
				if len(o.sectors[s]) > 1 {
					lost[s] = e.ref
				}
			}
		}
	}
	return o
}

func sector(data []byte, s int) []byte {
	return append([]byte(nil), data[s*TornUnit:min((s+1)*TornUnit, len(data))]...)
}

// durable drops, from the sectors of a range, the versions that are older than
// the last one made before event at.
func (o *Outcomes) durable(off, n int64, at int, lost []int) {
	for s := int(off / TornUnit); int64(s)*TornUnit < off+n; s++ {
		v := o.sectors[s]
		base := 0
		for i := range v {
			if v[i].at < at {
				base = i
			}
		}
		// The newest is clean though never written: this sync has nothing to
		// do.
		if v[base].at < lost[s] {
			continue
		}
		o.sectors[s] = v[base:]
	}
}

// Undecided is how many sectors have more than one outcome.
func (o *Outcomes) Undecided() int {
	n := 0
	for _, v := range o.sectors {
		if len(v) > 1 {
			n++
		}
	}
	return n
}

// Oldest is the outcome in which nothing that was not synced is there.
func (o *Outcomes) Oldest() []byte {
	return o.pick(func(v []version) int { return 0 })
}

// Newest is the outcome in which everything is there.
func (o *Outcomes) Newest() []byte {
	return o.pick(func(v []version) int { return len(v) - 1 })
}

// Pick is an outcome at random: some mix whole requests, some tear them.
func (o *Outcomes) Pick(rng *rand.Rand) []byte {
	switch rng.IntN(3) {
	case 0: // each sector for itself
		return o.pick(func(v []version) int { return rng.IntN(len(v)) })
	case 1: // the old or the new
		return o.pick(func(v []version) int { return rng.IntN(2) * (len(v) - 1) })
	}
	kept := make(map[int]bool) // each event is there as a whole or not at all
	return o.pick(func(v []version) int {
		for i := len(v) - 1; i > 0; i-- {
			k, known := kept[v[i].at]
			if !known {
				k = rng.IntN(2) == 0
				kept[v[i].at] = k
			}
			if k {
				return i
			}
		}
		return 0
	})
}

func (o *Outcomes) pick(choose func([]version) int) []byte {
	img := make([]byte, 0, o.size)
	for _, v := range o.sectors {
		img = append(img, v[choose(v)].data...)
	}
	return img
}
