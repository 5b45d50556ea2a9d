// Command sealdisk exposes encrypted disks over NBD with keys from a KMS.
package main

import (
	"os"

	"sealdisk/pkg/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], deps()))
}
