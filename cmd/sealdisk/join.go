package main

import (
	"context"

	"sealdisk/pkg/cli"
	"sealdisk/pkg/daemon"
)

// version is set by the linker.
var version = "development"

// deps gives the command line the parts of the daemon that it starts.
func deps() cli.Deps {
	return cli.Deps{
		Version: version,
		Serve: func(ctx context.Context, o cli.ServeOptions) error {
			log, err := daemon.NewLogger("serve", o.Engine.LogLevel)
			if err != nil {
				return err
			}
			return daemon.Serve(ctx, daemon.Config{StateDir: o.StateDir, RunDir: o.RunDir, KMSSocket: o.KMSSocket,
				KMSArgs: o.KMSArgs, Engine: daemon.EngineConfig(o.Engine)}, log)
		},
		Engine: func(ctx context.Context, o cli.EngineOptions) error {
			log, err := daemon.NewLogger("engine", o.LogLevel)
			if err != nil {
				return err
			}
			return daemon.RunEngine(ctx, daemon.EngineConfig(o), version, log)
		},
		FetchKey: func(_ context.Context, o cli.FetchKeyOptions) error {
			return daemon.RunFetchKey(o.KMSSocket, o.RequireLocked)
		},
		Ready: daemon.Ready,
	}
}
