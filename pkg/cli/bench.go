package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
	"sealdisk/pkg/bench"
	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbd/nbdclient"
	"sealdisk/pkg/secmem"
)

type benchOptions struct {
	time        time.Duration
	quick       bool
	size        string
	connections int
	write       bool
	json        bool
}

const (
	benchTime  = 2 * time.Second
	quickTime  = 300 * time.Millisecond
	maxTime    = time.Hour
	writeRange = 256 << 20 // default of --size with --write
	// maxBenchConnections leaves others some of those that a disk may have.
	maxBenchConnections = 64
)

func newBench(a *App) *cobra.Command {
	var o benchOptions
	c := diskArg(a, &cobra.Command{
		Use:   "bench DISK",
		Short: "Measure an attached disk: operations, throughput, latencies",
		Long: `Measures an attached disk through its NBD socket, as its clients see it: 4 KiB random
requests with 1 and with 32 under way, 128 KiB sequential ones with 16, and 1 MiB ones with 8.
It shows operations and megabytes (10^6 bytes) per second, and the latency that half, 99 % and
99.9 % of the requests did not exceed, in microseconds. Ctrl-C ends it and shows what was
measured.

It only reads, and may run beside other users of the disk; they slow each other down. What the
page cache holds is read faster than what has to come from storage, and holes (never
written, or trimmed) faster than data.

With --write it measures writes too and leaves the contents as they are: blocks are read and
then written back. Only the writes are timed; they go as far as a write without FLUSH does.
Nobody else may use the disk meanwhile, since what they wrote between reading and
writing back would be lost: it is refused while the disk has other connections, and ends as soon
as one appears. It uses the first 256M of the disk unless told otherwise. Holes in there are filled with
zeros at the start, so that data are measured, and given back at the end; killed in between
(not by Ctrl-C), the disk goes on taking up that storage. It asks first, or needs --yes.`,
		Example: `  sealdisk bench data
  sealdisk bench data --quick
  sealdisk bench data --connections 4 --time 10s
  sealdisk bench data --write --size 1G --yes --json`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), a, args[0]) },
	})
	f := c.Flags()
	f.DurationVar(&o.time, "time", benchTime, "how long each row is measured")
	f.BoolVar(&o.quick, "quick", false, "a glance: short for --time "+quickTime.String())
	f.StringVar(&o.size, "size", "", "use only so much of the disk, from its start: 10G (GiB), 512M (default: all; with --write 256M)")
	f.IntVar(&o.connections, "connections", 1, "connections, each with a row's number of requests under way")
	f.BoolVar(&o.write, "write", false, "measure writes too: contents are read and written back")
	f.BoolVar(&o.json, "json", false, "short for --output json")
	c.MarkFlagsMutuallyExclusive("time", "quick")
	for _, name := range []string{"time", "size", "connections"} {
		must(c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return c
}

// config checks the options; size is the disk's.
func (o *benchOptions) config(size int64) (cfg bench.Config, err error) {
	cfg = bench.Config{Connections: o.connections, Time: o.time, Write: o.write}
	if o.quick {
		cfg.Time = quickTime
	}
	switch {
	case cfg.Time <= 0 || cfg.Time > maxTime:
		return cfg, usagef("e.g. 500ms, 2s, 1m", "--time is above 0 and at most %v, not %v", maxTime, cfg.Time)
	case o.connections < 1 || o.connections > maxBenchConnections:
		return cfg, usagef("", "--connections is from 1 to %d, not %d", maxBenchConnections, o.connections)
	case o.size != "":
		cfg.Range, err = ParseSize(o.size)
	case o.write:
		cfg.Range = writeRange
	}
	if cfg.Range == 0 || cfg.Range > size {
		cfg.Range = size
	}
	return cfg, err
}

func (o *benchOptions) run(ctx context.Context, a *App, name string) error {
	if o.json {
		a.Output = "json"
	}
	if err := secmem.HardenProcess(); err != nil { // the disk's contents pass through
		return err
	}
	c := a.client()
	v, err := c.Find(ctx, a.Project, name)
	if err != nil {
		return err
	}
	cfg, err := o.config(v.Sealdisk.SizeBytes)
	if err != nil {
		return err
	}
	if v.Sealdisk.URI == "" {
		return notAttached(v)
	}
	socket, export, err := nbdclient.ParseURI(v.Sealdisk.URI)
	if err != nil {
		return err
	}
	if o.write {
		if err := a.mayWrite(ctx, v, cfg.Range); err != nil {
			return err
		}
	}
	cfg.Dial = func(ctx context.Context, o nbdclient.Options) (*nbdclient.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		return nbdclient.Dial(ctx, socket, export, o)
	}
	cfg.Alone = func(ctx context.Context, own int) error {
		now, err := c.Show(ctx, a.Project, v.ID)
		if err == nil && now.Sealdisk.Connections != own {
			err = otherClient(v, "while it was measured: stopped. What it wrote in its first moment may have been overwritten by what was there before")
		}
		return err
	}
	var done func()
	cfg.Progress, done = a.benchProgress(cfg.Time)
	report, err := bench.Run(ctx, cfg)
	done()
	if errors.Is(err, nbdclient.ErrClosed) {
		// A server that drains a disk may hang up before it can say so.
		if now, serr := c.Show(ctx, a.Project, v.ID); serr == nil && now.Status != v.Status {
			err = fmt.Errorf("%w: %w", nbd.ESHUTDOWN, err)
		}
	}
	if report != nil && (err == nil || len(report.Results) > 0) {
		if eerr := a.showBench(v, cfg, report); err == nil {
			err = eerr
		}
	}
	return benchError(v, err)
}

// dialTime bounds connecting, in case the daemon hangs.
const dialTime = 15 * time.Second

// alonePatience is how long a client that was just closed may take to disappear.
const alonePatience = time.Second

// mayWrite asks whether the disk may be written to.
func (a *App) mayWrite(ctx context.Context, v api.Volume, size int64) error {
	if v.Sealdisk.ReadOnly {
		return readOnly(v)
	}
	for deadline := time.After(alonePatience); v.Sealdisk.Connections > 0; {
		select {
		case <-deadline:
			return otherClient(v, "already: its contents can't be read and written back safely")
		case <-ctx.Done():
			return interrupted(ctx)
		case <-time.After(alonePatience / 50):
		}
		var err error
		if v, err = a.client().Show(ctx, a.Project, v.ID); err != nil {
			return err
		}
	}
	return a.Confirm(fmt.Sprintf("Read the first %s of disk %s and write them back, again and again", FormatSize(size), v.Name))
}

func notAttached(v api.Volume) error {
	return &api.Error{Class: api.ClassConflict, Message: fmt.Sprintf("disk %s is not attached (it is %s)", v.Name, v.Status),
		Hint: "sealdisk disk attach " + v.Name}
}

func readOnly(v api.Volume) error {
	return &api.Error{Class: api.ClassConflict, Message: fmt.Sprintf("disk %s is attached read-only", v.Name), Hint: "leave out --write"}
}

func interrupted(ctx context.Context) error {
	return &api.Error{Class: api.ClassInternal, Message: "interrupted", Err: context.Cause(ctx)}
}

func otherClient(v api.Volume, how string) error {
	return &api.Error{Class: api.ClassConflict, Message: fmt.Sprintf("another client uses disk %s %s", v.Name, how),
		Hint: "disconnect it first (umount, nbd-client -d); sealdisk disk show " + v.Name + " counts the connections"}
}

// benchError is where failures of a measurement get their class and hint.
func benchError(v api.Volume, err error) error {
	var known *api.Error
	var refused *nbdclient.OptionError
	fail := func(class api.Class, hint, format string, args ...any) error {
		return &api.Error{Class: class, Message: fmt.Sprintf("disk %s: ", v.Name) + fmt.Sprintf(format, args...), Hint: hint, Err: err}
	}
	const again = "see: sealdisk status"
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled):
		return &api.Error{Class: api.ClassInternal, Message: "interrupted", Err: err}
	case errors.Is(err, bench.ErrReadOnly):
		return readOnly(v)
	case errors.Is(err, fs.ErrPermission), errors.As(err, &refused) && refused.Reply == nbd.RepErrUnknown:
		return fail(api.ClassDenied, "only the user who attached it (see sealdisk disk show) and root may", "you may not connect to it: %v", err)
	case errors.As(err, &refused) && refused.Reply == nbd.RepErrShutdown, errors.Is(err, nbd.ESHUTDOWN), errors.Is(err, fs.ErrNotExist):
		return fail(api.ClassConflict, "sealdisk disk attach "+v.Name, "it was detached meanwhile")
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, nbdclient.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		return fail(api.ClassDaemonUnreachable, again, "the daemon does not serve it any more: %v", err)
	case errors.Is(err, nbd.ENOSPC):
		return fail(api.ClassNoSpace, "its holes can't be filled: use a smaller --size, or make room", "%v", err)
	case errors.Is(err, nbd.EIO):
		return fail(api.ClassInternal, "the daemon's log says why; sealdisk disk show "+v.Name, "%v", err)
	}
	return fail(api.ClassInternal, again, "%v", err)
}
