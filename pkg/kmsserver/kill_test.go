package kmsserver_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/dew"
)

// kill -9 in the middle of writes loses no key that was acknowledged, nor a
// change of state, and the next KMS starts on what is left.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := tempDir(t)
	acked := map[string]string{} // id → name
	disabled := map[string]bool{}
	type held struct {
		w  kms.Wrapped
		dk []byte
	}
	var disks []held
	const aad = "sealdisk:v1:default:kill"

	for round := range 6 {
		p := spawn(t, dir)
		admin, evs := dew.NewClient(p.socket), dew.New(p.socket)
		if _, err := admin.GrantAgency(t.Context(), project); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		enough := make(chan struct{})
		for writer := range 3 {
			wg.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("k-%d-%d-%d", round, writer, i)
					id, err := admin.CreateKey(t.Context(), project, name, strings.Repeat("x", 100))
					if err != nil {
						return // killed
					}
					mu.Lock()
					acked[id] = name
					if i == 7+round && writer == 0 {
						close(enough)
					}
					mu.Unlock()
					if i%3 == 0 {
						if _, err := admin.DisableKey(t.Context(), project, id); err != nil {
							return
						}
						mu.Lock()
						disabled[id] = true
						mu.Unlock()
						continue
					}
					w, err := evs.NewWrapped(t.Context(), project, id, aad)
					if err != nil {
						return
					}
					dk := make([]byte, kms.DKSize)
					if err := evs.Unwrap(t.Context(), project, w, aad, dk); err != nil {
						return
					}
					mu.Lock()
					disks = append(disks, held{w, dk})
					mu.Unlock()
				}
			})
		}
		<-enough
		p.end(syscall.SIGKILL)
		wg.Wait()
		if _, err := os.Stat(p.socket); err != nil {
			t.Fatalf("the dead KMS should leave its socket: %v", err)
		}
	}

	in := start(t, dir)
	admin, evs := dew.NewClient(in.socket), dew.New(in.socket)
	keys, err := admin.ListKeys(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, k := range keys {
		found[k.KeyID] = k.KeyAlias
		if disabled[k.KeyID] && k.KeyState != "3" {
			t.Errorf("key %s was disabled and is in state %s", k.KeyAlias, k.KeyState)
		}
	}
	for id, name := range acked {
		if found[id] != name {
			t.Errorf("acknowledged key %s (%s) is lost", name, id)
		}
	}
	for _, d := range disks {
		dk := make([]byte, kms.DKSize)
		if err := evs.Unwrap(t.Context(), project, d.w, aad, dk); err != nil || !bytes.Equal(dk, d.dk) {
			t.Errorf("a data key does not come back: %v", err)
		}
	}
	t.Logf("%d keys acknowledged, %d found, %d disabled, %d data keys", len(acked), len(keys), len(disabled), len(disks))
}
