package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
)

func (b *bench) finalizeNow(id string) Job {
	b.t.Helper()
	j, err := b.Finalize(b.t.Context(), project, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.wait(j)
}

// expectFinal fails unless dm-crypt could read the disk: no requirement and no hole.
func (b *bench) expectFinal(id string) {
	b.t.Helper()
	image, err := os.ReadFile(b.imagePath(id))
	if err != nil {
		b.t.Fatal(err)
	}
	h, c, err := luks2.Read(bytes.NewReader(image))
	if err != nil || !c.Healthy() {
		b.t.Fatalf("%v, %v", c, err)
	}
	if len(h.Requirements) != 0 {
		b.t.Fatalf("requirements %q", h.Requirements)
	}
	for off := luks2.DataOffset; off < len(image); off += 512 {
		if bytes.Equal(image[off:off+512], make([]byte, 512)) {
			b.t.Fatalf("a hole at byte %d", off)
		}
	}
}

func TestFinalize(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	want := pattern(5000, 9)
	if err := b.attach(d.ID).Device.WriteAt(bytes.Clone(want), 12345, 0); err != nil {
		t.Fatal(err)
	}
	_, err := b.Finalize(t.Context(), project, d.ID)
	wantClass(t, err, api.ClassConflict) // attached
	b.detach(d.ID)
	if j := b.finalizeNow(d.ID); j.Status != JobSuccess {
		t.Fatalf("%+v", j)
	}
	i := b.show(d.ID)
	if i.Encryption.Holes || i.Discard || i.Encryption.MinGeneration != 2 || i.State != StateAvailable {
		t.Fatalf("%+v %+v", i.Record, i.Encryption)
	}
	a := b.attach(d.ID)
	got := make([]byte, len(want))
	if err := a.Device.ReadAt(got, 12345); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("other data (%v)", err)
	}
	if err := a.Device.Trim(0, 65536, 0); err != nil {
		t.Fatal(err)
	}
	if err := a.Device.WriteZeroes(65536, 65536, 0); err != nil {
		t.Fatal(err)
	}
	b.detach(d.ID)
	b.expectFinal(d.ID) // nothing punches any more
	if j := b.finalizeNow(d.ID); j.Status != JobSuccess {
		t.Fatalf("a second time: %+v", j)
	}
}

func TestFinalizeNeedsAKeyAndAnEncryptedDisk(t *testing.T) {
	b := newBench(t)
	plain := b.create(CreateOptions{Name: "plain"})
	_, err := b.Finalize(t.Context(), project, plain.ID)
	wantClass(t, err, api.ClassConflict)
	d := b.encrypted("a")
	b.keys.Fail(kms.ErrDisabled)
	if j := b.finalizeNow(d.ID); j.Status != JobFail || j.FailClass != api.ClassKeyUnusable || j.FailHint == "" {
		t.Fatalf("%+v", j)
	}
	if i := b.show(d.ID); i.State != StateAvailable || i.Reason == "" || !i.Encryption.Holes {
		t.Fatalf("%+v", i)
	}
	b.keys.Fail(nil)
	b.finalizeNow(d.ID)
	b.expectFinal(d.ID)
}

func TestFinalizeFileOffline(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	key := b.keys.LastDK()
	want := pattern(4096, 5)
	if err := b.attach(d.ID).Device.WriteAt(bytes.Clone(want), 8192, 0); err != nil {
		t.Fatal(err)
	}
	_, err := FinalizeFile(t.Context(), b.imagePath(d.ID), key, nil)
	wantClass(t, err, api.ClassConflict) // attached
	b.detach(d.ID)
	wrong := bytes.Clone(key)
	wrong[0] ^= 1
	_, err = FinalizeFile(t.Context(), b.imagePath(d.ID), wrong, nil)
	wantClass(t, err, api.ClassCorrupt)
	_, err = FinalizeFile(t.Context(), b.imagePath(d.ID), key[:32], nil)
	wantClass(t, err, api.ClassUsage)
	_, err = FinalizeFile(t.Context(), b.imagePath(d.ID)+"x", key, nil)
	wantClass(t, err, api.ClassNotFound)

	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err = FinalizeFile(stopped, b.imagePath(d.ID), key, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	var last int64
	done, err := FinalizeFile(t.Context(), b.imagePath(d.ID), key, func(done, total int64) { last = total })
	if err != nil || !done || last != d.Size {
		t.Fatalf("%v, %v, %d", done, err, last)
	}
	b.expectFinal(d.ID)
	if done, err = FinalizeFile(t.Context(), b.imagePath(d.ID), key, nil); err != nil || done {
		t.Fatalf("a second time: %v, %v", done, err)
	}

	// The daemon believes the header, which is newer and has a good MAC.
	got := make([]byte, len(want))
	if err := b.attach(d.ID).Device.ReadAt(got, 8192); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("other data (%v)", err)
	}
	if e := b.show(d.ID).Encryption; e.Holes || e.MinGeneration != 2 {
		t.Fatalf("%+v", e)
	}
	b.detach(d.ID)
	b.expectFinal(d.ID)
}
