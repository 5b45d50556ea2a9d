package daemon

import (
	"context"
	"net"
	"os"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/apiserver"
	"sealdisk/pkg/secmem"
	"sealdisk/xts"
)

// newAPI makes the EVS API over this engine's disks.
func (e *engine) newAPI() *apiserver.Server {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return apiserver.New(apiserver.Config{Disks: e.disks, Status: e.status, Log: e.log, Role: e.role, HostName: host,
		Connections: e.pub.connectionsOf})
}

// role says what a peer of the API may do: root and the daemon's user all, and
// with a socket group its members, whom the socket's mode admits, use disks.
func (e *engine) role(p apiserver.Peer) apiserver.Role {
	switch {
	case p.UID == 0, p.UID == uint32(os.Geteuid()):
		return apiserver.RoleAdmin
	case e.cfg.SocketGroup != "":
		return apiserver.RoleUser
	}
	return apiserver.RoleNone
}

// kmsDialTime bounds the look whether the KMS is there.
const kmsDialTime = time.Second

// status tells of the daemon.
func (e *engine) status(ctx context.Context) api.Status {
	told := e.link.told()
	s := api.Status{
		Version: e.version, PID: os.Getpid(), Started: e.began, RunDir: e.cfg.RunDir, StateDir: e.cfg.StateDir,
		KeyMemory: string(e.mode), Cipher: xts.Tier(), Disks: e.disks.States(), Connections: e.pub.connections(),
		KMS:         api.KMSHealth{Socket: told.KMSSocket, Embedded: told.Embedded},
		KeysFetched: e.keys.Fetched(), Processes: told.Processes,
	}
	warn := func(msg string) { s.Warnings = append(s.Warnings, msg) }
	for id, err := range e.disks.Broken() {
		if s.Broken == nil {
			s.Broken = map[string]string{}
		}
		s.Broken[id] = err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, kmsDialTime)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", s.KMS.Socket)
	if err == nil {
		s.KMS.Reachable = true
		c.Close()
	} else {
		s.KMS.Reason = err.Error()
		warn("the KMS is unreachable: attached disks go on, none can be created or attached")
	}
	if e.modeErr != nil {
		s.KeyMemory = e.modeErr.Error()
		warn("no encrypted disk can be attached: no memory can be locked")
	} else if e.mode != secmem.ModeSecret {
		warn("keys are in locked pages that root can read: the kernel gives no secret memory")
	}
	if e.keys.Unlocked() {
		warn("the key child can't lock its memory (RLIMIT_MEMLOCK): for a moment a key could reach swap")
	}
	return s
}
