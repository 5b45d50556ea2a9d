package conformance

import (
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// fio with verification: random sizes, four jobs, also with trims.
func TestFioVerify(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "256M")
	for _, c := range []struct {
		name string
		args []string
	}{
		{"random sizes", []string{"--rw=randrw", "--bsrange=512-128k", "--blockalign=512", "--iodepth=16"}},
		{"bytes", []string{"--rw=randwrite", "--bs_unaligned", "--bsrange=1k-20k", "--iodepth=4", "--io_size=8M"}},
		{"with trims", []string{"--rw=trimwrite", "--bs=16k", "--iodepth=8"}},
		{"sequential, 1 MiB", []string{"--rw=write", "--bs=1M", "--iodepth=8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"fio", "--name=v", "--ioengine=nbd", "--uri=" + uri, "--thread",
				"--numjobs=4", "--size=32M", "--offset_increment=64M", "--fsync=256",
				"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--verify_backlog=512", "--do_verify=1", "--randseed=11", "--group_reporting"}, c.args...)
			out := testbed.Succeed(t, args...)
			if !strings.Contains(out, "err= 0") {
				t.Errorf("fio:\n%s", out)
			}
		})
	}
}
