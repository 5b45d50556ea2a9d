package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"sealdisk/pkg/disk"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/nbdserver"
)

// publisher serves attached disks over NBD: each on a socket of its own, and
// all on the shared listeners. It is the disk.Publisher of the engine.
type publisher struct {
	server *nbdserver.Server
	runDir string
	log    *zap.Logger

	mu    sync.RWMutex
	disks map[string]*published // by UUID
}

// published is one disk that is served.
type published struct {
	at       *disk.Attachment
	export   *nbdserver.Export
	listener net.Listener
}

func newPublisher(server *nbdserver.Server, runDir string, log *zap.Logger) *publisher {
	return &publisher{server: server, runDir: runDir, log: log, disks: map[string]*published{}}
}

// socketQuery leaves slashes readable, and writes spaces as URIs do.
var socketQuery = strings.NewReplacer("%2F", "/", "+", "%20")

// Publish implements disk.Publisher.
func (p *publisher) Publish(a *disk.Attachment) (uri string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.disks[a.ID] != nil {
		return "", fmt.Errorf("disk %s is served already", a.ID)
	}
	path := perDiskSocket(p.runDir, a.ID)
	owner := int(a.UID)
	if a.UID == 0 || a.UID == uint32(os.Geteuid()) {
		owner = -1 // this user's socket will do, and only root could give it away
	}
	l, err := nbdserver.ListenUnix(path, owner)
	if err != nil {
		return "", fmt.Errorf("socket of the disk: %w", err)
	}
	d := &published{at: a, listener: l, export: &nbdserver.Export{
		Name: a.ID, Description: a.Project + "/" + a.Name,
		Device: a.Device, Locks: a.Locks, ReadOnly: a.ReadOnly, LogicalBlockSize: a.BlockSize,
		Gate: new(nbdserver.Gate),
	}}
	p.disks[a.ID] = d
	go func() {
		err := p.server.Serve(l, &diskExports{d: d})
		if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, nbdserver.ErrServerClosed) {
			p.log.Error("the disk's socket failed", logfield.Disk(a.ID), logfield.Err(err))
		}
	}()
	return "nbd+unix:///" + url.PathEscape(a.Name) + "?socket=" + socketQuery.Replace(url.QueryEscape(path)), nil
}

// Withdraw implements disk.Publisher.
func (p *publisher) Withdraw(ctx context.Context, id string) error {
	p.mu.Lock()
	d := p.disks[id]
	delete(p.disks, id)
	p.mu.Unlock()
	if d == nil {
		return nil
	}
	err := d.export.Gate.Close(ctx)
	if err != nil {
		// The connections are cut; what they had begun must still end before
		// the device and its key may go.
		_ = d.export.Gate.Close(context.WithoutCancel(ctx))
	}
	if lerr := d.listener.Close(); lerr != nil && !errors.Is(lerr, net.ErrClosed) {
		err = errors.Join(err, lerr)
	}
	return err
}

// connections counts the connections to all disks.
func (p *publisher) connections() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := 0
	for _, d := range p.disks {
		n += d.export.Gate.Connections()
	}
	return n
}

// connectionsOf counts the connections to the disk id; 0 if it is not served.
func (p *publisher) connectionsOf(id string) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if d := p.disks[id]; d != nil {
		return d.export.Gate.Connections()
	}
	return 0
}

// find returns the disk that name means: a UUID, PROJECT/NAME, or NAME where
// only one project has a disk of that name.
func (p *publisher) find(name string) *published {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if d := p.disks[name]; d != nil {
		return d
	}
	project, short, qualified := strings.Cut(name, "/")
	if !qualified {
		short = name
	}
	var found *published
	for _, d := range p.disks {
		if d.at.Name != short || qualified && d.at.Project != project {
			continue
		}
		if found != nil {
			return nil // ambiguous
		}
		found = d
	}
	return found
}

// names returns one name for each disk, the shortest that is unambiguous.
func (p *publisher) names() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	count := map[string]int{}
	for _, d := range p.disks {
		count[d.at.Name]++
	}
	var names []string
	for _, d := range p.disks {
		if count[d.at.Name] == 1 && p.disks[d.at.Name] == nil {
			names = append(names, d.at.Name)
		} else {
			names = append(names, d.at.Project+"/"+d.at.Name)
		}
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names
}

// diskExports is what the socket of one disk offers: that disk, also as the
// default export, to who attached it and to root.
type diskExports struct{ d *published }

func (e *diskExports) allowed(p nbdserver.Peer) bool {
	return p.Local && (p.UID == e.d.at.UID || p.UID == 0)
}

// Open implements nbdserver.Exports.
func (e *diskExports) Open(p nbdserver.Peer, name string) (*nbdserver.Export, error) {
	a := e.d.at
	if !e.allowed(p) || !slices.Contains([]string{"", a.ID, a.Name, a.Project + "/" + a.Name}, name) {
		return nil, nbdserver.ErrUnknownExport
	}
	return e.d.export, nil
}

// List implements nbdserver.Exports.
func (e *diskExports) List(p nbdserver.Peer) []string {
	if !e.allowed(p) {
		return nil
	}
	return []string{e.d.at.Name}
}

// sharedExports is what the shared listeners offer: all disks, to those that
// allowed admits.
type sharedExports struct {
	p       *publisher
	allowed func(nbdserver.Peer) bool
}

// Open implements nbdserver.Exports.
func (e *sharedExports) Open(p nbdserver.Peer, name string) (*nbdserver.Export, error) {
	if e.allowed(p) {
		if d := e.p.find(name); d != nil {
			return d.export, nil
		}
	}
	return nil, nbdserver.ErrUnknownExport
}

// List implements nbdserver.Exports.
func (e *sharedExports) List(p nbdserver.Peer) []string {
	if !e.allowed(p) {
		return nil
	}
	return e.p.names()
}

// owner admits root and the daemon's user.
func owner(p nbdserver.Peer) bool {
	return p.Local && (p.UID == 0 || p.UID == uint32(os.Geteuid()))
}

// anyLocal admits whoever could connect to a socket whose file mode, or
// whose loopback address, says who may.
func anyLocal(nbdserver.Peer) bool { return true }

// removeStale removes the sockets that an engine left behind which was
// killed.
func removeStale(runDir string) error {
	entries, err := os.ReadDir(filepath.Join(runDir, nbdDirName))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type() != os.ModeSocket && !strings.HasPrefix(e.Name(), ".s") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(runDir, nbdDirName, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
