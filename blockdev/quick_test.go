package blockdev_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"sealdisk/blockdev"
	"sealdisk/xts"
)

func TestQuick(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/dev/shm"} {
		p := filepath.Join(dir, "sealdisk-quick")
		os.WriteFile(p, nil, 0o600)
		defer os.Remove(p)
		os.Truncate(p, 1<<20)
		f, err := blockdev.OpenFile(p, blockdev.FileOptions{Discard: true})
		if err != nil {
			t.Fatal(err)
		}
		sched := make([]byte, xts.ScheduleSize)
		key := make([]byte, 64)
		key[3] = 3
		xts.Expand(sched, key)
		c, err := blockdev.NewCrypt(f, xts.New(sched), blockdev.CryptOptions{SectorSize: 4096, Holes: true, Discard: true})
		if err != nil {
			t.Fatal(err)
		}
		d := blockdev.Serialize(c)
		want := bytes.Repeat([]byte("abcdefg"), 1000)
		if err := d.WriteAt(bytes.Clone(want), 777, blockdev.FUA); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if err := d.ReadAt(got, 777); err != nil || !bytes.Equal(got, want) {
			t.Fatal(err)
		}
		if err := d.(blockdev.NowReader).ReadNow(got, 777); err != nil || !bytes.Equal(got, want) {
			t.Fatal(err)
		}
		if err := d.WriteZeroes(1000, 3000, blockdev.FastZero|blockdev.FUA); err != nil {
			t.Fatal(err)
		}
		clear(want[1000-777 : 4000-777])
		if err := d.ReadAt(got, 777); err != nil || !bytes.Equal(got, want) {
			t.Fatal(err)
		}
		e, err := d.Extents(nil, 0, 1<<20, 10)
		t.Log(e, err)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
