package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sealdisk/blockdev"
	"sealdisk/pkg/api"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/secmem"
)

// Config says what a Manager works with. All fields but Now, BootID and Catalog are needed.
type Config struct {
	StateDir  string
	Catalog   Catalog // nil: a DirCatalog in <state>/catalog
	Keys      KeyFetcher
	Publisher Publisher
	Log       *zap.Logger
	Secmem    secmem.Options
	BootID    string // "" is this boot's
	Now       func() time.Time
}

// Manager is one daemon's disks. All methods may be called concurrently.
// Their errors are *api.Error.
type Manager struct {
	dir     string
	catalog Catalog
	keys    KeyFetcher
	pub     Publisher
	log     *zap.Logger
	secmem  secmem.Options
	boot    string
	now     func() time.Time
	lock    *os.File

	// Tests set these before the first use.
	step    func(string) // as DirCatalog.step
	storage func(blockdev.Storage) blockdev.Storage

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // background jobs
	jobs   jobList
	broken map[string]error // catalog entries that can't be used, fixed after Open

	mu     sync.Mutex // guards what follows
	disks  map[string]*entry
	closed bool
}

// entry is one disk. Who changes the record holds mu, through storing it as
// well; anybody may read the latest record.
type entry struct {
	mu     sync.Mutex
	gone   bool // guarded by mu: out of the catalog, nothing may be stored any more
	record atomic.Pointer[Record]
	// open is what the disk holds while attached. It belongs to who moved the
	// disk to attaching or detaching, and is only read in the state in-use.
	open atomic.Pointer[session]
}

// Open takes the state directory of cfg, which no other process may use, and
// loads the catalog. Nothing is attached before Recover.
func Open(cfg Config) (*Manager, error) {
	m := &Manager{
		dir: cfg.StateDir, catalog: cfg.Catalog, keys: cfg.Keys, pub: cfg.Publisher, log: cfg.Log,
		secmem: cfg.Secmem, boot: cfg.BootID, now: cfg.Now, step: func(string) {},
		disks: map[string]*entry{},
	}
	if m.now == nil {
		m.now = func() time.Time { return time.Now().UTC() }
	}
	if err := m.load(); err != nil {
		if m.lock != nil {
			m.lock.Close()
		}
		return nil, apiError("open the state directory", err, nil)
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, nil
}

func (m *Manager) load() (err error) {
	if m.boot == "" {
		b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return err
		}
		m.boot = strings.TrimSpace(string(b))
	}
	if err := os.MkdirAll(filepath.Join(m.dir, "disks"), 0o700); err != nil {
		return err
	}
	if m.lock, err = lockState(m.dir); err != nil {
		return err
	}
	if m.catalog == nil {
		if m.catalog, err = OpenDirCatalog(filepath.Join(m.dir, "catalog")); err != nil {
			return err
		}
	}
	records, broken, err := m.catalog.Load()
	if err != nil {
		return err
	}
	m.broken = broken
	for id, err := range broken {
		m.log.Error("catalog entry is left aside", logfield.Disk(id), logfield.Err(err))
	}
	for _, r := range records {
		e := new(entry)
		e.record.Store(r)
		m.disks[r.ID] = e
		if r.Job != nil {
			m.jobs.put(r.Job)
		}
	}
	return nil
}

// lockState takes <state>/lock until the file is closed.
func lockState(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		f.Close()
		return nil, conflict("stop the other daemon, or give this one its own --state-dir and --run-dir", "another daemon uses %s", dir)
	default:
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
}

// imageDir and imagePath say where a disk's data is.
func (m *Manager) imageDir(id string) string  { return filepath.Join(m.dir, "disks", id) }
func (m *Manager) imagePath(id string) string { return filepath.Join(m.imageDir(id), imageName) }

const imageName = "disk.img"

// Info is a disk as others see it.
type Info struct {
	Record
	// The following are empty unless the disk is in use.
	URI       string
	KeyMemory secmem.Mode // how its key is kept; "" for an unencrypted disk
}

func (e *entry) info() Info {
	r := e.record.Load()
	i := Info{Record: *r.clone()}
	if i.State == StateNone { // its key is being made
		i.State = StateCreating
	}
	if s := e.open.Load(); s != nil && r.State == StateInUse {
		i.URI, i.KeyMemory = s.uri, s.keyMemory()
	}
	return i
}

// List returns the disks of project, ordered by name.
func (m *Manager) List(project string) []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Info
	for _, e := range m.disks {
		if e.record.Load().Project == project {
			list = append(list, e.info())
		}
	}
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Show returns one disk of project.
func (m *Manager) Show(project, id string) (Info, error) {
	e, err := m.find(project, id)
	if err != nil {
		return Info{}, err
	}
	return e.info(), nil
}

// Job returns a job of project.
func (m *Manager) Job(project, id string) (Job, error) {
	if j, ok := m.jobs.get(project, id); ok {
		return j, nil
	}
	return Job{}, &api.Error{Class: api.ClassNotFound, Code: api.CodeJobNotFound, Message: "job " + id + " does not exist", Hint: "jobs that ended are forgotten when the daemon restarts"}
}

// Broken returns the ids of the catalog entries that can't be used, and why.
func (m *Manager) Broken() map[string]error { return m.broken }

// States counts the disks of all projects by state.
func (m *Manager) States() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := map[string]int{}
	for _, e := range m.disks {
		n[string(e.info().State)]++
	}
	return n
}

// find returns the disk id of project. A disk of another project looks as if
// it did not exist.
func (m *Manager) find(project, id string) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.disks[id]
	if e == nil || e.record.Load().Project != project {
		if err := m.broken[id]; err != nil {
			return nil, apiError("disk "+id, err, nil)
		}
		return nil, notFound("disk", id)
	}
	return e, nil
}

// add takes a new disk into the list unless its id or its name within the
// project is taken, so that two creations of one name can't both go on.
func (m *Manager) add(r *Record) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disks[r.ID] != nil || m.broken[r.ID] != nil {
		return nil, conflict("a disk can be here only once", "disk %s is in the catalog already", r.ID)
	}
	for _, e := range m.disks {
		if o := e.record.Load(); o.Project == r.Project && o.Name == r.Name {
			return nil, conflict("choose another name", "a disk named %s exists already in project %s", r.Name, r.Project)
		}
	}
	e := new(entry)
	e.record.Store(r)
	m.disks[r.ID] = e
	return e, nil
}

// forget takes a disk out of the list.
func (m *Manager) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.disks, id)
}

// move lets ev happen: it stores the record in the next state, changed by
// change (which may be nil or refuse), and returns it. On an error nothing has changed.
func (m *Manager) move(e *entry, ev event, change func(*Record) error) (*Record, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return m.moveLocked(e, ev, change, false)
}

// settle is move for what has happened already, whether or not it can be stored: the record
// in memory changes in any case. A failure to store is only logged, and what
// Recover finds then is resolved as after a crash.
func (m *Manager) settle(e *entry, ev event, change func(*Record)) *Record {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, err := m.moveLocked(e, ev, func(r *Record) error { change(r); return nil }, true)
	if err != nil {
		m.log.Error("the disk's state can't be stored", logfield.Disk(e.record.Load().ID), logfield.Op(string(ev)), logfield.Err(err))
	}
	return r
}

func (m *Manager) moveLocked(e *entry, ev event, change func(*Record) error, always bool) (*Record, error) {
	old := e.record.Load()
	if e.gone {
		return old, notFound("disk", old.ID)
	}
	to, err := old.next(ev)
	if err != nil {
		return old, err
	}
	r := old.clone()
	r.Format, r.State, r.Updated = recordFormat, to, m.now()
	if change != nil {
		if err := change(r); err != nil {
			return old, err
		}
	}
	err = m.catalog.Put(r)
	if err != nil && !always {
		return old, err
	}
	e.record.Store(r)
	if r.Job != nil {
		m.jobs.put(r.Job)
	}
	return r, err
}

// amend changes a record without an event.
func (m *Manager) amend(e *entry, change func(*Record)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.record.Load().clone()
	if e.gone {
		return notFound("disk", r.ID)
	}
	change(r)
	r.Format, r.Updated = recordFormat, m.now()
	err := m.catalog.Put(r)
	e.record.Store(r)
	return err
}

// begin lets an operation begin, unless the Manager is closed: Close ends its
// context and waits for end.
func (m *Manager) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, nil, apiError("the daemon is stopping", context.Canceled, nil)
	}
	m.work.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(m.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		m.work.Done()
	}, nil
}

// background runs f unless the Manager is closed; Close ends f's context and
// waits for it.
func (m *Manager) background(f func(context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.work.Go(func() { f(m.ctx) })
	return true
}
