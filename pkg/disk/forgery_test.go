package disk

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
)

// headerBytes is where both copies of a header are.
const headerBytes = 32 << 10

func (b *bench) saveHeader(id string) []byte {
	b.t.Helper()
	f, err := os.Open(b.imagePath(id))
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, headerBytes)
	if _, err := f.ReadAt(p, 0); err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bench) putHeader(id string, p []byte) {
	b.t.Helper()
	f, err := os.OpenFile(b.imagePath(id), os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, 0); err != nil {
		b.t.Fatal(err)
	}
}

// rewrite changes a disk's header as somebody would who can write the image;
// resealed says that they have the data key too.
func (b *bench) rewrite(id string, resealed bool, change func(*luks2.Header)) {
	b.t.Helper()
	f, err := os.OpenFile(b.imagePath(id), os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	h, _, err := luks2.Read(f)
	if err != nil {
		b.t.Fatal(err)
	}
	change(h)
	if resealed {
		if err := h.Seal(b.keys.LastDK()); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := luks2.Write(f, h); err != nil {
		b.t.Fatal(err)
	}
}

// expectRefused fails unless the disk can't be attached for this reason, and stays as it is.
func (b *bench) expectRefused(id string, reason string) {
	b.t.Helper()
	_, err := b.Attach(b.t.Context(), project, id, AttachOptions{AcceptDataLoss: true})
	if e := wantClass(b.t, err, api.ClassCorrupt); !strings.Contains(e.Message, reason) {
		b.t.Fatalf("refused with %q, want something with %q", e.Message, reason)
	}
	if i := b.show(id); i.State != StateAvailable || i.Reason == "" {
		b.t.Fatalf("%+v", i)
	}
	if b.pub.get(id) != nil {
		b.t.Fatal("it is served")
	}
}

// TestForgedHeaders: changes that a right checksum, and even the data key, can't hide from
// the catalog.
func TestForgedHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		resealed bool
		change   func(*luks2.Header)
		reason   string
	}{
		"key id, MAC as it was":      {false, func(h *luks2.Header) { h.Token.KeyID = "1" + testKey[1:] }, "key"},
		"key id, resealed":           {true, func(h *luks2.Header) { h.Token.KeyID = "1" + testKey[1:] }, "key"},
		"KMS":                        {true, func(h *luks2.Header) { h.Token.Provider = "mine" }, "KMS"},
		"disk id":                    {true, func(h *luks2.Header) { h.UUID = uuid.NewString(); h.Token.DiskID = h.UUID }, "UUID"},
		"project":                    {true, func(h *luks2.Header) { h.Token.Project = "other" }, "project"},
		"sector size":                {true, func(h *luks2.Header) { h.SectorSize = 512 }, "sector size"},
		"fixed data size":            {true, func(h *luks2.Header) { h.DataSize = 4096 }, "size"},
		"no requirement":             {false, func(h *luks2.Header) { h.Requirements = nil }, "requirement"},
		"no requirement, resealed":   {true, func(h *luks2.Header) { h.Requirements = nil }, "requirement"},
		"newer generation":           {false, func(h *luks2.Header) { h.Token.Generation++ }, "changed"},
		"newer, without its holes":   {false, func(h *luks2.Header) { h.Token.Generation++; h.Requirements = nil }, "changed"},
		"wrapped key of another one": {false, func(h *luks2.Header) { h.Token.WrappedDK[3] ^= 1 }, "key"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d := b.encrypted("a")
			b.rewrite(d.ID, c.resealed, c.change)
			b.expectRefused(d.ID, c.reason)
		})
	}
}

// TestHeaderUnderAnotherKeyIsRefused: all of it is genuine, but the disk was created under another key.
func TestHeaderUnderAnotherKeyIsRefused(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.rewrite(d.ID, false, func(h *luks2.Header) {
		if err := b.keys.Rewrap(h, "1"+testKey[1:]); err != nil {
			t.Fatal(err)
		}
	})
	b.expectRefused(d.ID, "the header's key is")
}

// TestOlderHeaderIsRefused: a header that was genuine once, put back.
func TestOlderHeaderIsRefused(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	old := b.saveHeader(d.ID)
	j, err := b.Finalize(t.Context(), project, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if j = b.wait(j); j.Status != JobSuccess {
		t.Fatalf("%+v", j)
	}
	now := b.saveHeader(d.ID)
	b.putHeader(d.ID, old)
	b.expectRefused(d.ID, "generation")
	b.restart(thisBoot)
	b.expectRefused(d.ID, "generation")
	b.putHeader(d.ID, now)
	b.attach(d.ID)
}

func TestImageOfAnotherDiskIsRefused(t *testing.T) {
	b := newBench(t)
	d, other := b.encrypted("a"), b.encrypted("b")
	b.putHeader(d.ID, b.saveHeader(other.ID))
	b.expectRefused(d.ID, "UUID")
	if err := os.Rename(b.imagePath(other.ID), b.imagePath(d.ID)); err != nil {
		t.Fatal(err)
	}
	b.expectRefused(d.ID, "UUID")
	b.expectRefused(other.ID, "missing")
}

// TestEncryptedDiskIsNeverServedRaw: a header that is gone does not make a plain disk of it.
func TestEncryptedDiskIsNeverServedRaw(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	b.putHeader(d.ID, make([]byte, headerBytes))
	b.expectRefused(d.ID, "LUKS2")
}

func TestTruncatedOrGrownImageIsRefused(t *testing.T) {
	for _, encrypted := range []bool{true, false} {
		for name, by := range map[string]int64{"by a sector": -4096, "by a byte": -1, "to nothing": -(17 << 20), "grown": 4096} {
			t.Run(name, func(t *testing.T) {
				b := newBench(t)
				d := b.create(CreateOptions{Name: "a", Encrypted: encrypted})
				st, err := os.Stat(b.imagePath(d.ID))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(b.imagePath(d.ID), max(0, st.Size()+by)); err != nil {
					t.Fatal(err)
				}
				reason := "are missing"
				if by > 0 {
					reason = "too many"
				} else if encrypted && st.Size()+by < headerBytes {
					reason = "LUKS2" // the header is gone as well
				}
				b.expectRefused(d.ID, reason)
			})
		}
	}
}

func TestDamagedCopyIsRepaired(t *testing.T) {
	for name, off := range map[string]int{"first": 100, "second": 16384 + 100} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d := b.encrypted("a")
			good := b.saveHeader(d.ID)
			bad := bytes.Clone(good)
			bad[off] ^= 0xff
			b.putHeader(d.ID, bad)
			b.attach(d.ID)
			b.detach(d.ID)
			f, err := os.Open(b.imagePath(d.ID))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, c, err := luks2.Read(f); err != nil || !c.Healthy() {
				t.Fatalf("not repaired: %v, %v", c, err)
			}
		})
	}
	t.Run("both", func(t *testing.T) {
		b := newBench(t)
		d := b.encrypted("a")
		bad := b.saveHeader(d.ID)
		bad[100] ^= 0xff
		bad[16384+100] ^= 0xff
		b.putHeader(d.ID, bad)
		b.expectRefused(d.ID, "damaged")
	})
}

func TestReadOnlyAttachWritesNothing(t *testing.T) {
	b := newBench(t)
	d := b.encrypted("a")
	bad := b.saveHeader(d.ID)
	bad[100] ^= 0xff
	b.putHeader(d.ID, bad)
	if _, err := b.Attach(t.Context(), project, d.ID, AttachOptions{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.pub.get(d.ID).Device.WriteAt(make([]byte, 512), 0, 0); err == nil {
		t.Fatal("written")
	}
	if !bytes.Equal(b.saveHeader(d.ID), bad) {
		t.Fatal("the header was changed")
	}
	b.detach(d.ID)
}
