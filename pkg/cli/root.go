// Package cli is the command line of sealdisk: one file per command, each an
// options struct, its flags and a function that writes to the App's writers.
// Data goes to stdout, words to stderr, errors as "error: …" and "hint: …".
//
// The long-running parts (serve, engine, fetch-key, kms serve) are not in this package:
// cmd/sealdisk gives them as functions in Deps.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
)

// App is what all commands share. The fields below Deps are resolved (flag,
// environment, config file, default) before a command runs.
type App struct {
	Deps Deps
	In   io.Reader
	Out  io.Writer // data
	Err  io.Writer // words

	RunDir   string // where api.sock and kms.sock are
	StateDir string
	Project  string
	Output   string // "table" or "json"
	Yes      bool   // destructive verbs do not ask

	flags   settings // as given on the command line
	running bool     // a command's own function was reached: errors before are usage errors
}

// Main runs the command line args (without the program's name) and returns the exit code.
func Main(args []string, d Deps) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, args, &App{Deps: d, In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}

// Run is Main with its surroundings given.
func Run(ctx context.Context, args []string, a *App) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return api.ExitOK
	}
	if !a.running && api.ClassOf(err) == api.ClassInternal {
		err = &api.Error{Class: api.ClassUsage, Message: err.Error(), Hint: "see: sealdisk --help", Err: err}
	}
	return a.fail(err)
}

// fail tells err on a.Err and returns its exit code. It is the one place where an
// error becomes words and a number.
func (a *App) fail(err error) int {
	fmt.Fprintln(a.Err, "error:", err)
	var e *api.Error
	var other interface{ Hint() string } // as secmem.MemlockError
	if errors.As(err, &e) && e.Hint != "" {
		fmt.Fprintln(a.Err, "hint:", e.Hint)
	} else if errors.As(err, &other) {
		fmt.Fprintln(a.Err, "hint:", other.Hint())
	}
	return api.ClassOf(err).ExitCode()
}

func newRoot(a *App) *cobra.Command {
	root := &cobra.Command{
		Use:   "sealdisk",
		Short: "Encrypted disks over NBD, with keys from a KMS",
		Long: `sealdisk exposes encrypted disks (LUKS2 files) over NBD. The key of a disk comes from
a KMS when the disk is attached, lives only in locked memory, and is gone when
the disk is detached.`,
		Example: `  sealdisk serve &
  sealdisk agency grant
  sealdisk disk create data --size 10G
  sealdisk disk attach data`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.resolve(os.Getenv); err != nil {
				return err
			}
			if err := errors.Join(cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()); err != nil {
				return err // a usage error, like other wrong flags
			}
			a.running = true
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.flags.RunDir, "run-dir", "", "directory of the sockets (SEALDISK_RUN_DIR)")
	f.StringVar(&a.flags.StateDir, "state-dir", "", "directory of the disks, the catalog and the embedded KMS")
	f.StringVar(&a.flags.Project, "project", "", "project (SEALDISK_PROJECT; default \"default\")")
	f.StringVarP(&a.flags.Output, "output", "o", "", "table or json (SEALDISK_OUTPUT; default \"table\")")
	f.BoolVarP(&a.Yes, "yes", "y", false, "do not ask before a destructive command")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	for _, c := range commands {
		root.AddCommand(c(a))
	}
	return root
}

// must panics on a programmer's mistake in the definition of a command.
func must(err error) {
	if err != nil {
		panic("cli: " + err.Error())
	}
}

// group makes a command that only holds others: alone it shows its help, with an unknown verb it fails.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("see: "+cmd.CommandPath()+" --help", "unknown command %q for %q", args[0], cmd.CommandPath())
			}
			return cmd.Help()
		},
	}
	c.AddCommand(sub...)
	return c
}

// usagef makes an error of bad input with a hint (may be empty).
func usagef(hint, format string, v ...any) error {
	return &api.Error{Class: api.ClassUsage, Message: fmt.Sprintf(format, v...), Hint: hint}
}
