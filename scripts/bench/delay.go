package main

import (
	"context"
	"fmt"
	"strings"
)

// Storage that takes 1 ms for each operation is no file that a peer could be
// given: pkg/nbdserver's own benchmarks have such a device. What they print becomes
// part of the report.
const (
	delayPackage = "sealdisk/pkg/nbdserver"
	delayPattern = "Delay|SlowStorage"
)

func measureDelay(ctx context.Context, o *options, res *result) error {
	progress("delay: go test -bench '%s' %s", o.delayBench, delayPackage)
	out, err := command(ctx, nil, "go", "test", "-run", "^$", "-bench", o.delayBench, "-benchtime", o.time.String(), delayPackage)
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Benchmark") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	res.Delay = strings.Join(lines, "\n")
	clearProgress()
	if res.Delay == "" {
		fmt.Printf("\n%s has no benchmark like %s: no row for slow storage.\n", delayPackage, o.delayBench)
		return nil
	}
	fmt.Printf("\nStorage with 1 ms for each operation\n%s\n", res.Delay)
	return saveResult(o, res)
}
