package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/client"
)

// useDisk is what another user does with a disk: attach it, write and read it on
// its own socket, and try what is an administrator's.
func useDisk(runDir, id string) error {
	ctx := context.Background()
	c := client.New(filepath.Join(runDir, apiSocketName))
	if _, err := c.Attach(ctx, "default", id, api.AttachRequest{}); err != nil {
		return err
	}
	dev, err := open(perDiskSocket(runDir, id), "")
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := dev.WriteAt(make([]byte, 4096), 0, 0); err != nil {
		return err
	}
	if err := dev.ReadAt(make([]byte, 4096), 0); err != nil {
		return err
	}
	if _, err := c.Import(ctx, "default", api.ImportRequest{}); api.ClassOf(err) != api.ClassDenied {
		return fmt.Errorf("import, which is for administrators: %v", err)
	}
	return nil
}

// Members of the socket group use disks, each through a socket of his own;
// without the group, and for others, everything is shut.
func TestSocketGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it changes users")
	}
	const nobody, nogroup = 65534, "nogroup"
	as := func(cfg Config, id string, uid, gid uint32) (string, error) {
		cmd := exec.Command("/proc/self/exe", "user", "--run-dir="+cfg.RunDir, "--disk="+id)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, group := range []string{"", nogroup} {
		t.Run("group "+group, func(t *testing.T) {
			cfg := dirs(t)
			if err := os.Chmod(filepath.Dir(cfg.RunDir), 0o755); err != nil {
				t.Fatal(err)
			}
			cfg.Engine.SocketGroup = group
			d := start(t, cfg)
			v := d.disk(t, "data")
			if err := d.client.Detach(t.Context(), "default", v.ID); err != nil {
				t.Fatal(err)
			}
			if out, err := as(cfg, v.ID, nobody-1, nobody-1); err == nil || !strings.Contains(out, "permission denied") {
				t.Errorf("a stranger: %v %s", err, out)
			}
			out, err := as(cfg, v.ID, nobody-1, nobody)
			if group == "" {
				if err == nil || !strings.Contains(out, "permission denied") {
					t.Errorf("without the group: %v %s", err, out)
				}
				return
			}
			if err != nil {
				t.Fatalf("a member of the group: %v %s", err, out)
			}
			st, err := os.Stat(perDiskSocket(cfg.RunDir, v.ID))
			if err != nil || ownerOf(st) != nobody-1 || st.Mode().Perm() != 0o600 {
				t.Errorf("the disk's socket: %v, %v", st, err)
			}
		})
	}
}
