package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sealdisk/pkg/api"
	"sealdisk/pkg/disk/disktest"
)

// crashEnv tells this test binary to be a daemon that is killed: it holds
// "scenario|number of the step to die at|state directory|disk id|path".
const crashEnv = "SEALDISK_TEST_CRASH"

func TestMain(m *testing.M) {
	if v := os.Getenv(crashEnv); v != "" {
		os.Exit(crashChild(strings.Split(v, "|")))
	}
	os.Exit(m.Run())
}

// crashTB lets the child use a bench.
type crashTB struct{ testing.TB }

func (crashTB) Helper() {}
func (crashTB) Fatal(a ...any) {
	fmt.Fprintln(os.Stderr, a...)
	os.Exit(3)
}
func (t crashTB) Fatalf(f string, a ...any) { t.Fatal(fmt.Sprintf(f, a...)) }

// crashChild runs a scenario and kills itself before the n-th step that changes
// something durable. It returns 0 if there are fewer steps.
func crashChild(arg []string) int {
	n, err := strconv.Atoi(arg[1])
	if err != nil {
		return 4
	}
	b := &bench{t: crashTB{}, dir: arg[2], keys: &disktest.Keys{}}
	b.open(thisBoot)
	ctx := b.ctx
	steps := 0
	step := func(string) {
		if steps++; steps == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	if arg[0] != "recover" {
		if err := b.Recover(ctx, false); err != nil {
			b.t.Fatal(err)
		}
	}
	b.step = step
	c := b.catalog.(*DirCatalog)
	c.step = step
	c.sync = func(f *os.File) error { step("sync"); return f.Sync() }
	check := func(err error) {
		if err != nil {
			b.t.Fatal(err)
		}
	}
	job := func(j Job, err error) {
		check(err)
		if j = b.wait(j); j.Status != JobSuccess {
			b.t.Fatal(j.FailReason)
		}
	}
	id, path := arg[3], arg[4]
	switch arg[0] {
	case "create":
		job(b.Create(ctx, CreateOptions{Project: project, Name: "new", Size: 64 << 10, Encrypted: true}))
	case "create filled":
		job(b.Create(ctx, CreateOptions{Project: project, Name: "new", Size: 64 << 10, Encrypted: true, NoDiscard: true}))
	case "create unencrypted":
		job(b.Create(ctx, CreateOptions{Project: project, Name: "new", Size: 64 << 10, Preallocate: true}))
	case "attach and detach":
		_, err := b.Attach(ctx, project, id, AttachOptions{UID: 1})
		check(err)
		check(b.Detach(ctx, project, id))
	case "delete":
		job(b.Delete(project, id))
	case "finalize":
		job(b.Finalize(ctx, project, id))
	case "import", "import in place":
		job(b.Import(ctx, ImportOptions{Project: project, Path: path, Name: "new"}))
	case "recover":
		check(b.Recover(ctx, false))
	}
	return 0
}

// These tests are not parallel: a fork holds other daemons' locks until its exec.

// TestKilledAtAnyStep kills a daemon before each durable step of each
// operation, and looks at what the next daemon makes of it.
func TestKilledAtAnyStep(t *testing.T) {
	for _, c := range []struct {
		scenario string
		least    int // steps; fewer would mean that the hooks are gone
	}{
		{"create", 12}, {"create filled", 12}, {"create unencrypted", 10}, {"attach and detach", 16},
		{"delete", 9}, {"finalize", 10}, {"import", 12}, {"import in place", 8},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			for n := 1; ; n++ {
				k := newCrash(t, c.scenario)
				killed := k.run(c.scenario, n)
				k.check(fmt.Sprintf("%s, step %d", c.scenario, n), killed)
				if t.Failed() {
					return
				}
				if !killed {
					if n <= c.least {
						t.Fatalf("only %d steps", n-1)
					}
					return
				}
			}
		})
	}
}

// TestKilledWhileRecovering: a second kill in the middle of cleaning up.
func TestKilledWhileRecovering(t *testing.T) {
	for scenario, first := range map[string]int{"create": 9, "delete": 6, "attach and detach": 9, "finalize": 6} {
		t.Run(scenario, func(t *testing.T) {
			for n := 1; n < 12; n++ {
				k := newCrash(t, scenario)
				if !k.run(scenario, first) {
					t.Fatalf("there is no step %d", first)
				}
				if !k.run("recover", n) {
					n = 12 // it had no more steps
				}
				k.check(fmt.Sprintf("%s, step %d, recovery step %d", scenario, first, n), true)
			}
		})
	}
}

// crash is a state directory with one disk, "kept", and what is expected of it.
type crash struct {
	t      *testing.T
	dir    string
	kept   Info
	data   []byte
	source string // directory of a disk to import
	moved  Info   // that disk
}

func newCrash(t *testing.T, scenario string) *crash {
	k := &crash{t: t, dir: t.TempDir(), data: pattern(4096, 8)}
	b := &bench{t: t, dir: k.dir, keys: &disktest.Keys{}}
	b.open(thisBoot)
	k.kept = b.encrypted("kept")
	if err := b.attach(k.kept.ID).Device.WriteAt(bytes.Clone(k.data), 4096, 0); err != nil {
		t.Fatal(err)
	}
	b.detach(k.kept.ID)
	if err := b.Manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(scenario, "import") {
		k.moved, k.source = exported(t, b.keys, k.data)
		if scenario == "import in place" {
			if err := os.Rename(k.source, b.imageDir(k.moved.ID)); err != nil {
				t.Fatal(err)
			}
			k.source = b.imageDir(k.moved.ID)
		}
	}
	return k
}

// run reports whether the child was killed.
func (k *crash) run(scenario string, n int) bool {
	k.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%d|%s|%s|%s", crashEnv, scenario, n, k.dir, k.kept.ID, k.source))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true
	}
	k.t.Fatalf("%s, step %d: %v\n%s", scenario, n, err, out)
	return false
}

// check starts a daemon and looks for anything half done.
func (k *crash) check(at string, killed bool) {
	k.t.Helper()
	b := &bench{t: k.t, dir: k.dir, keys: &disktest.Keys{}}
	b.open(thisBoot)
	defer b.Manager.Close(k.t.Context())
	if err := b.Recover(k.t.Context(), false); err != nil {
		k.t.Errorf("%s: recover: %v", at, err)
	}
	if len(b.Broken()) > 0 {
		k.t.Errorf("%s: broken entries %v", at, b.Broken())
	}
	list := b.List(project)
	for _, i := range list {
		if i.Job != nil && !i.Job.Done() && i.Job.Type == JobFinalize {
			if j := b.wait(*i.Job); j.Status != JobSuccess {
				k.t.Errorf("%s: %+v", at, j)
			}
			i = b.show(i.ID)
		}
		k.checkDisk(at, b, i)
	}
	if !killed && strings.HasPrefix(at, "delete") != (len(list) == 0) {
		k.t.Errorf("%s: done, %d disks", at, len(list))
	}
	k.checkLeftovers(at, b, list)
	// The names are free again, or taken by a disk that works.
	_, err := b.Create(k.t.Context(), CreateOptions{Project: project, Name: "new", Size: 4096})
	if taken := len(list) > 0 && list[len(list)-1].Name == "new"; taken != (api.ClassOf(err) == api.ClassConflict) || !taken && err != nil {
		k.t.Errorf("%s: new again: %v", at, err)
	}
}

// checkDisk: a disk that is there works, with its data.
func (k *crash) checkDisk(at string, b *bench, i Info) {
	k.t.Helper()
	if i.State == StateInUse {
		b.detach(i.ID)
	} else if i.State != StateAvailable {
		k.t.Errorf("%s: disk %s is %s: %s", at, i.Name, i.State, i.Reason)
		return
	}
	if _, err := b.Attach(k.t.Context(), project, i.ID, AttachOptions{}); err != nil {
		k.t.Errorf("%s: disk %s: %v", at, i.Name, err)
		return
	}
	off, want := int64(4096), k.data
	switch i.ID {
	case k.kept.ID:
	case k.moved.ID:
		off = 1 << 20
	default:
		want = make([]byte, 4096)
	}
	got := make([]byte, len(want))
	if err := b.pub.get(i.ID).Device.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
		k.t.Errorf("%s: disk %s has other data (%v)", at, i.Name, err)
	}
	b.detach(i.ID)
	if i.Encryption != nil && !b.show(i.ID).Encryption.Holes {
		b.expectFinal(i.ID)
	}
}

// checkLeftovers: nothing lies about that no record knows.
func (k *crash) checkLeftovers(at string, b *bench, list []Info) {
	k.t.Helper()
	known := map[string]bool{}
	for _, i := range list {
		known[i.ID] = true
	}
	if k.source == b.imageDir(k.moved.ID) {
		known[k.moved.ID] = true
		if _, err := os.Stat(filepath.Join(k.source, imageName)); err != nil {
			k.t.Errorf("%s: the adopted image is gone: %v", at, err)
		}
	}
	for _, pattern := range []string{"disks/*", "catalog/*", "catalog/.*"} {
		paths, err := filepath.Glob(filepath.Join(k.dir, pattern))
		if err != nil {
			k.t.Fatal(err)
		}
		for _, p := range paths {
			if !known[strings.TrimSuffix(filepath.Base(p), recordSuffix)] {
				k.t.Errorf("%s: left behind: %s", at, p)
			}
		}
	}
}
