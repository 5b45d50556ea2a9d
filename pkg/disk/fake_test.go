package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealdisk/pkg/api"
	"sealdisk/pkg/disk/disktest"
	"sealdisk/pkg/secmem"
)

const (
	project = "default"
	testKey = disktest.KeyID
)

// fakePublisher serves nothing, and refuses its device to callers after Withdraw.
type fakePublisher struct {
	mu   sync.Mutex
	now  map[string]*Attachment
	err  error
	busy sync.RWMutex // held shared by what uses a device
}

func (p *fakePublisher) Publish(a *Attachment) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return "", p.err
	}
	if p.now == nil {
		p.now = map[string]*Attachment{}
	}
	if p.now[a.ID] != nil {
		return "", errors.New("published twice")
	}
	p.now[a.ID] = a
	return fmt.Sprintf("nbd+unix:///%s?socket=/run/%s.sock", a.Name, a.ID), nil
}

func (p *fakePublisher) Withdraw(_ context.Context, id string) error {
	p.busy.Lock()
	defer p.busy.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now[id] == nil {
		return errors.New("withdrawn but not published")
	}
	delete(p.now, id)
	return nil
}

func (p *fakePublisher) get(id string) *Attachment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now[id]
}

// bench is a Manager with its fakes on a directory.
type bench struct {
	*Manager
	t    testing.TB
	dir  string
	keys *disktest.Keys
	pub  *fakePublisher
}

const thisBoot = "b0000000-0000-0000-0000-000000000001"

func newBench(t testing.TB) *bench {
	b := &bench{t: t, dir: t.TempDir(), keys: &disktest.Keys{}}
	b.open(thisBoot)
	t.Cleanup(func() { b.Manager.Close(context.Background()) })
	return b
}

// open starts a daemon on the directory, without Recover.
func (b *bench) open(boot string) {
	b.t.Helper()
	b.pub = &fakePublisher{}
	m, err := Open(b.config(boot))
	if err != nil {
		b.t.Fatal(err)
	}
	b.Manager = m
}

func (b *bench) config(boot string) Config {
	return Config{StateDir: b.dir, Keys: b.keys, Publisher: b.pub, Log: zap.NewNop(), BootID: boot,
		Secmem: secmem.Options{ForceLocked: true}}
}

// restart stops the daemon in good order and starts it again.
func (b *bench) restart(boot string) {
	b.t.Helper()
	if err := b.Manager.Close(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.open(boot)
	if err := b.Recover(b.t.Context(), false); err != nil {
		b.t.Fatal(err)
	}
}

// create makes a disk and waits for it.
func (b *bench) create(o CreateOptions) Info {
	b.t.Helper()
	if o.Project == "" {
		o.Project = project
	}
	if o.Size == 0 {
		o.Size = 256 << 10
	}
	j, err := b.Create(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	if j = b.wait(j); j.Status != JobSuccess {
		b.t.Fatalf("create: %+v", j)
	}
	return b.show(j.DiskID)
}

func (b *bench) encrypted(name string) Info {
	b.t.Helper()
	return b.create(CreateOptions{Name: name, Encrypted: true})
}

func (b *bench) show(id string) Info {
	b.t.Helper()
	i, err := b.Show(project, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

// wait waits until a job is done.
func (b *bench) wait(j Job) Job {
	b.t.Helper()
	b.until("job "+string(j.Type), func() bool {
		var err error
		if j, err = b.Job(j.Project, j.ID); err != nil {
			b.t.Fatal(err)
		}
		return j.Done()
	})
	return j
}

// until waits for a condition.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("%s: not within two minutes", what)
		}
	}
}

func (b *bench) attach(id string) *Attachment {
	b.t.Helper()
	if _, err := b.Attach(b.t.Context(), project, id, AttachOptions{UID: 7, GID: 8}); err != nil {
		b.t.Fatal(err)
	}
	return b.pub.get(id)
}

func (b *bench) detach(id string) {
	b.t.Helper()
	if err := b.Detach(b.t.Context(), project, id); err != nil {
		b.t.Fatal(err)
	}
}

// wantClass fails unless err is of class c and says something.
func wantClass(t testing.TB, err error, c api.Class) *api.Error {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Class != c || e.Message == "" {
		t.Fatalf("got %v of class %s, want class %s", err, api.ClassOf(err), c)
	}
	return e
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i/512) + byte(i) + seed
	}
	return p
}
