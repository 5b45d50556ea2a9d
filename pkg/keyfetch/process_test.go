package keyfetch

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
	"sealdisk/xts"
)

// The test binary as the child: its role says how the child behaves.
const roleEnv = "KEYFETCH_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	p := &fixedKMS{die: role == "die"}
	var pages *os.File
	if os.Getenv("PAGES") != "" {
		pages = os.NewFile(4, "key pages")
	}
	if err := Run(os.NewFile(3, "conversation"), pages, p, ChildOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fixedKMS wraps one data key, the same in every process.
type fixedKMS struct{ die bool }

func fixedDK() []byte {
	dk := make([]byte, kms.DKSize)
	for i := range dk {
		dk[i] = byte(i + 1)
	}
	return dk
}

func (*fixedKMS) Name() string { return "fixed" }

func (*fixedKMS) DescribeKey(context.Context, string, string) (kms.Key, error) {
	return kms.Key{ID: "k", State: kms.StateEnabled, Version: "1"}, nil
}

func (*fixedKMS) NewWrapped(context.Context, string, string, string) (kms.Wrapped, error) {
	return kms.Wrapped{KeyID: "k", KeyVersion: "1", Ciphertext: []byte("wrapped")}, nil
}

func (p *fixedKMS) Unwrap(_ context.Context, _ string, _ kms.Wrapped, _ string, dst []byte) error {
	d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || d != 0 {
		return fmt.Errorf("the child is asked to hold a key while dumpable: %d, %v", d, err)
	}
	if p.die {
		os.Exit(3)
	}
	copy(dst, fixedDK())
	return nil
}

// processes starts real children.
type processes struct {
	t    *testing.T
	role string
}

func (s processes) Spawn(ctx context.Context, files ...*os.File) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = []string{roleEnv + "=" + s.role}
	cmd.ExtraFiles = files
	if len(files) > 1 {
		cmd.Env = append(cmd.Env, "PAGES=1")
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	s.t.Cleanup(func() { cmd.Wait() })
	return nil
}

func TestRealChild(t *testing.T) {
	for _, opt := range []secmem.Options{{}, {ForceLocked: true}} {
		c := New(processes{t, "serve"}, Options{})
		h := created(t, c)
		r, err := secmem.Create(PagesSize, opt)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Destroy()
		if err := c.Attach(t.Context(), h, r); err != nil {
			t.Fatalf("%s: %v", r.Mode(), err)
		}
		want, err := secmem.Lock(PagesSize)
		if err != nil {
			t.Fatal(err)
		}
		defer want.Destroy()
		if err := xts.Expand(want.Bytes(), fixedDK()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Bytes(), want.Bytes()) {
			t.Errorf("%s: the pages are not the expanded key", r.Mode())
		}
	}
}

func TestChildDies(t *testing.T) {
	_, err := New(processes{t, "die"}, Options{}).Create(t.Context(), plain(), "finance")
	wantIs(t, err, ErrDied)
}
