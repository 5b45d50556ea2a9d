//go:build vmlong

package vm

import (
	"testing"
	"time"
)

// The same with more data: fio's files are larger than what the caches of the
// short run hold.
func TestExt4Long(t *testing.T) {
	run(t, "ext4", 20*time.Minute, append(begun, cycle("ext4")...), "fio_size=32m")
}

func TestXFSLong(t *testing.T) {
	run(t, "xfs", 20*time.Minute, append(begun, cycle("xfs")...), "fio_size=48m")
}
