package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sealdisk/test/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// run boots a guest for a scenario and asserts its steps.
func run(t *testing.T, scenario string, timeout time.Duration, steps []string, params ...string) {
	t.Helper()
	r := Guest{Scenario: scenario, Binary: testbed.Binary(t), Timeout: timeout, Params: params}.Run(t)
	r.Expect(t, steps...)
}

// cycle is the life of a file system, see cycle in guest/disks.sh.
func cycle(fs string) (steps []string) {
	for _, s := range []string{
		"attach", "nbd-client", "mkfs", "mount", "files", "fio buffered", "fio direct", "fstrim", "contents equal", "umount", "disconnect", "detach",
		"attach again", "nbd-client again", "fsck clean", "mount again", "contents equal again", "umount again", "disconnect again", "detach again",
	} {
		steps = append(steps, fs+": "+s)
	}
	return steps
}

var begun = []string{"nbd module", "daemon answers", "key memory is told", "agency", "create"}

// The product's own tests of block devices, on one.
func TestBlockDevice(t *testing.T) {
	tests := filepath.Join(t.TempDir(), "blockdev.test")
	cmd := exec.Command("go", "test", "-c", "-tags", "blockdevice", "-o", tests, "sealdisk/blockdev")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run(t, "blockdevice", 12*time.Minute, []string{"loop device", "tests on a block device"}, "extra="+tests)
}

// scripts/demo.sh where the kernel has NBD.
func TestDemo(t *testing.T) {
	script, err := filepath.Abs("../../scripts/demo.sh")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "demo", 4*time.Minute, []string{"nbd module", "the demo is true", "nothing is left"}, "extra="+script)
}

// ext4 on the kernel's own NBD client, from mkfs to fsck after another attach.
func TestExt4(t *testing.T) {
	run(t, "ext4", 4*time.Minute, append(begun, cycle("ext4")...))
}

// XFS likewise, over four connections (nbd-client -C 4).
func TestXFSOverFourConnections(t *testing.T) {
	run(t, "xfs", 4*time.Minute, append(append(begun, "xfs: attach", "xfs: nbd-client", "xfs: four connections"), cycle("xfs")[2:]...))
}

// Two partitions with two file systems.
func TestPartitions(t *testing.T) {
	run(t, "partitions", 4*time.Minute, append(begun,
		"attach", "nbd-client", "partition table", "file systems on both", "files on the second", "files on the first", "umount", "disconnect", "detach",
		"attach again", "nbd-client -C 4 -b 4096", "fsck and mount both", "contents equal", "contents equal on the second", "umount again", "disconnect again", "detach again"))
}

// dm-crypt reads a finalized disk, and refuses one that may have holes.
func TestDMCrypt(t *testing.T) {
	run(t, "dmcrypt", 4*time.Minute, []string{
		"modules", "daemon answers", "agency", "create", "attach", "nbd-client", "mkfs", "mount", "files", "fstrim", "umount", "disconnect", "detach",
		"data key", "dm-crypt refuses a disk with holes", "finalize", "dm-crypt opens a finalized disk", "fsck clean",
		"mount through dm-crypt", "contents equal", "a file through dm-crypt", "umount again", "close",
		"attach again", "nbd-client again", "mount again", "the file of dm-crypt is there", "detach at the end"})
}
