package cli

import (
	"runtime"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sealdisk/pkg/api"
)

func newServe(a *App) *cobra.Command {
	var o ServeOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon: the engine, and the embedded KMS unless another is given",
		Example: `  sealdisk serve
  sealdisk serve --state-dir /srv/sealdisk --run-dir /run/sealdisk
  sealdisk serve --require-secretmem --no-reattach`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.Deps.Serve == nil {
				return errNotBuilt("serve")
			}
			o.RunDir, o.StateDir = a.RunDir, a.StateDir
			o.Engine.RunDir, o.Engine.StateDir = a.RunDir, a.StateDir
			return a.Deps.Serve(cmd.Context(), o)
		},
	}
	engineFlags(c.Flags(), &o.Engine)
	c.Flags().StringVar(&o.KMSSocket, "kms-socket", "", "use the KMS on this unix socket instead of the embedded one")
	c.Flags().StringArrayVar(&o.KMSArgs, "kms-arg", nil, "a further flag for the embedded KMS, e.g. --kms-arg=--root-key-credential=root (see: sealdisk kms serve --help)")
	return c
}

func engineFlags(f *pflag.FlagSet, o *EngineOptions) {
	f.BoolVar(&o.NoReattach, "no-reattach", false, "do not attach again the disks that were attached before a restart")
	f.BoolVar(&o.RequireSecretmem, "require-secretmem", false, "refuse to attach where memfd_secret is missing")
	f.BoolVar(&o.RequireLocked, "require-locked", false, "refuse to run where memory can't be locked")
	f.StringVar(&o.SocketGroup, "socket-group", "", "group that may use the sockets besides the daemon's user and root")
	f.StringVar(&o.NBDListen, "nbd-listen", "", "also serve NBD on this TCP address, loopback only (e.g. 127.0.0.1:10809)")
	f.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
}

// newEngine is started by the launcher, not by people.
func newEngine(a *App) *cobra.Command {
	var o EngineOptions
	c := &cobra.Command{
		Use:    "engine",
		Short:  "Run the data plane (started by serve)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.Deps.Engine == nil {
				return errNotBuilt("engine")
			}
			o.RunDir, o.StateDir = a.RunDir, a.StateDir
			return a.Deps.Engine(cmd.Context(), o)
		},
	}
	engineFlags(c.Flags(), &o)
	return c
}

// newFetchKey is started by the launcher, not by people.
func newFetchKey(a *App) *cobra.Command {
	var o FetchKeyOptions
	c := &cobra.Command{
		Use:    "fetch-key",
		Short:  "Fetch one key into key pages (started by serve)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.Deps.FetchKey == nil {
				return errNotBuilt("fetch-key")
			}
			if o.KMSSocket == "" {
				o.KMSSocket = a.Socket("kms.sock")
			}
			return a.Deps.FetchKey(cmd.Context(), o)
		},
	}
	c.Flags().StringVar(&o.KMSSocket, "kms-socket", "", "unix socket of the KMS")
	c.Flags().BoolVar(&o.RequireLocked, "require-locked", false, "refuse to run where memory can't be locked")
	return c
}

func newVersion(a *App) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{first(a.Deps.Version, "development"), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			return a.Emit(v, nil, [][]string{{"sealdisk " + v.Version}, {v.Go + " " + v.OS + "/" + v.Arch}})
		},
	}
}

func errNotBuilt(what string) error {
	return &api.Error{Class: api.ClassInternal, Message: what + " is not part of this program"}
}
