package cli

import "context"

// Deps are the parts of the program that the command line starts but does not
// hold. A nil function makes its command fail.
type Deps struct {
	Version string
	// Serve runs the launcher until ctx ends.
	Serve func(context.Context, ServeOptions) error
	// Engine runs the data plane and the EVS API; the launcher starts it.
	Engine func(context.Context, EngineOptions) error
	// FetchKey answers one key request on inherited descriptors and returns.
	FetchKey func(context.Context, FetchKeyOptions) error
	// Ready tells the launcher that started `kms serve`, if one did, that it serves.
	Ready func() error
}

// ServeOptions configure `sealdisk serve`.
type ServeOptions struct {
	RunDir, StateDir string
	KMSSocket        string   // of another KMS instead of the embedded one
	KMSArgs          []string // further flags for the embedded `kms serve`
	Engine           EngineOptions
}

// EngineOptions configure the engine. The launcher hands them on as flags.
type EngineOptions struct {
	RunDir, StateDir string
	NoReattach       bool   // do not attach again what was attached before a restart
	RequireSecretmem bool   // refuse key pages that are not memfd_secret
	RequireLocked    bool   // refuse to run where memory can't be locked
	SocketGroup      string // group that may use the sockets
	NBDListen        string // TCP address of the NBD server, loopback only; "" is off
	LogLevel         string // debug, info, warn or error
}

// FetchKeyOptions configure `sealdisk fetch-key`.
type FetchKeyOptions struct {
	KMSSocket     string
	RequireLocked bool
}
