// Command bench measures sealdisk beside other NBD servers: the same work from
// the same client (fio's nbd engine over a unix socket) in one run, taking turns,
// so that what the machine does meanwhile meets all of them.
//
//	bench [flags]                        everything: tens of minutes
//	bench -quick                         the core rows, two peers: two minutes
//	bench -target base=PATH -target new=PATH -rows core
//	bench -from dist/bench/results.json  report and picture again, nothing is measured
//	bench -machine                       what this machine is
//
// The flow: main.go reads the flags; run.go starts the servers of a stage
// (sealdisk.go, peers.go), fills their disks and measures the cells (cells.go)
// with fio (fio.go); stats.go takes medians; table.go, report.go and picture.go
// show them. Everything started is a child of this program in a process group
// of its own (process.go) and ends with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// A child asks to die with the thread that started it: that is to be the
// main thread, which lives as long as the program.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 && os.Args[1] == naiveCommand {
		exit(naiveMain(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	// Taken for good: what is said while everything is put away is to end nothing.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	go func() {
		select {
		case <-broken:
			cancel()
		case <-ctx.Done():
		}
		stop() // a second Ctrl-C ends at once; the children end with this process
	}()
	err := realMain(ctx, os.Args[1:])
	if err != nil && ctx.Err() != nil {
		err = errInterrupted
	}
	exit(err)
}

func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	var h *hinted
	if errors.As(err, &h) {
		fmt.Fprintln(os.Stderr, "hint:", h.hint)
	}
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case errors.Is(err, errInterrupted):
		os.Exit(130)
	}
	os.Exit(1)
}

// errInterrupted is returned when the run was ended from outside. What was
// measured before is in the report.
var errInterrupted = errors.New("interrupted")

// errUsage is returned when the flags can't be followed.
var errUsage = errors.New("usage")

// hinted is an error with advice.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// hint makes an error of the format, with advice.
func hint(advice, format string, args ...any) error {
	return &hinted{fmt.Errorf(format, args...), advice}
}

func realMain(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case o.machineOnly:
		fmt.Print(describeMachine(ctx, nil))
		return nil
	case o.from != "":
		res, err := loadResult(o.from)
		if err != nil {
			return err
		}
		return writeReport(o, res)
	}
	return measureAll(ctx, o)
}
