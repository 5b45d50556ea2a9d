//go:build !purego

package xts

import "golang.org/x/sys/cpu"

// tiers are those of this build that this CPU runs, the best first.
var tiers = detect()

func detect() []tier {
	if cpu.ARM64.HasAES {
		return []tier{tierAES, tierGeneric}
	}
	return []tier{tierGeneric}
}
