package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func newStatus(a *App) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show what the daemon does and what it warns of",
		Example: "  sealdisk status\n  sealdisk status --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			kms := "reachable"
			if !s.KMS.Reachable {
				kms = "not reachable: " + s.KMS.Reason
			}
			rows := [][]string{
				{"version", s.Version}, {"pid", strconv.Itoa(s.PID)}, {"started", formatTime(s.Started)},
				{"state directory", s.StateDir}, {"run directory", s.RunDir},
				{"key memory", s.KeyMemory}, {"cipher", s.Cipher}, {"kms", kms},
				{"disks", countDisks(s.Disks)}, {"nbd connections", strconv.Itoa(s.Connections)},
			}
			for _, id := range slices.Sorted(maps.Keys(s.Broken)) {
				rows = append(rows, []string{"broken entry", id + ": " + s.Broken[id]})
			}
			for _, w := range s.Warnings {
				rows = append(rows, []string{"warning", w})
			}
			return a.Emit(s, nil, rows)
		},
	}
}

// countDisks says e.g. "3 (1 available, 2 in-use)".
func countDisks(byState map[string]int) string {
	total, parts := 0, []string(nil)
	for _, state := range slices.Sorted(maps.Keys(byState)) {
		total += byState[state]
		parts = append(parts, fmt.Sprintf("%d %s", byState[state], state))
	}
	if total == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(parts, ", "))
}
