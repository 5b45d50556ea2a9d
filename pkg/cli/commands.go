package cli

import "github.com/spf13/cobra"

// commands makes the top-level commands in the order of the help.
var commands = []func(*App) *cobra.Command{
	newServe,
	newStatus,
	newDisk,
	newBench,
	newKey,
	newAgency,
	newKMS,
	newEngine,
	newFetchKey,
	newVersion,
}
