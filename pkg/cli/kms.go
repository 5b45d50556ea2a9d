package cli

import (
	"context"
	"fmt"
	"math"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/kmsserver"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/secmem"
)

func newKMS(a *App) *cobra.Command {
	return group("kms", "Run, back up and restore the embedded KMS", newKMSServe(a), newKMSBackup(a), newKMSRestore(a))
}

// kmsServeOptions are the flags of `kms serve`.
type kmsServeOptions struct {
	rootKeyFile   string
	credential    string
	passphrase    passphraseFlags
	requireLocked bool
	socketGroup   string
	serviceUID    int64
	adminUIDs     []uint
	logLevel      string
}

func newKMSServe(a *App) *cobra.Command {
	var o kmsServeOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the embedded KMS (started by `sealdisk serve`)",
		Long: `Runs the embedded KMS: its store is STATE-DIR/kms, its socket RUN-DIR/kms.sock.

The keys in the store are sealed under a root key, which is made on first start as the
file STATE-DIR/kms/root.key (mode 0600) unless it comes from a passphrase or a systemd
credential. A root key file beside the disks does not protect a stolen host.`,
		Example: `  sealdisk kms serve
  sealdisk kms serve --root-key-credential sealdisk-root
  sealdisk kms serve --ask-passphrase`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runKMSServe(cmd.Context(), a, o) },
	}
	f := c.Flags()
	f.StringVar(&o.rootKeyFile, "root-key-file", "", "root key file (default STATE-DIR/kms/root.key)")
	f.StringVar(&o.credential, "root-key-credential", "", "name of the systemd credential that holds the root key")
	o.passphrase.add(f, "passphrase that the root key is derived from (Argon2id)")
	f.BoolVar(&o.requireLocked, "require-locked", false, "refuse to run where memory can't be locked")
	f.StringVar(&o.socketGroup, "socket-group", "", "group that may use the socket besides this user and root")
	f.Int64Var(&o.serviceUID, "service-uid", -1, "uid of the disk service (default: this process's own)")
	f.UintSliceVar(&o.adminUIDs, "admin-uid", nil, "uid of an administrator besides root and this user; may be repeated")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	c.MarkFlagsMutuallyExclusive("root-key-file", "root-key-credential", "passphrase-file", "passphrase-fd", "ask-passphrase")
	return c
}

func runKMSServe(ctx context.Context, a *App, o kmsServeOptions) error {
	// Before a passphrase is read; Serve does it again for those that call it alone.
	if err := secmem.HardenProcess(); err != nil {
		return err
	}
	log, err := o.logger(a)
	if err != nil {
		return err
	}
	cfg, err := o.config(a)
	if err != nil {
		return err
	}
	cfg.Ready = func() {
		if a.Deps.Ready == nil {
			return
		}
		if err := a.Deps.Ready(); err != nil {
			log.Warn("telling the launcher that the KMS serves", logfield.Err(err))
		}
	}
	return kmsserver.Serve(ctx, cfg, log)
}

func (o *kmsServeOptions) config(a *App) (kmsserver.Config, error) {
	cfg := kmsserver.Config{
		StateDir: a.StateDir, Socket: a.Socket("kms.sock"), Policy: kmsserver.DefaultPolicy(),
		Root:          keystore.RootSource{File: o.rootKeyFile, Credential: o.credential},
		RequireLocked: o.requireLocked,
	}
	if o.passphrase.given() {
		cfg.Root.Passphrase = func() (*secmem.Buffer, error) { return o.passphrase.read(a, "Passphrase of the key store", false) }
	}
	if o.serviceUID >= 0 {
		if o.serviceUID > math.MaxUint32 {
			return cfg, usagef("", "--service-uid %d is no uid", o.serviceUID)
		}
		cfg.Policy.ServiceUID = uint32(o.serviceUID)
	}
	for _, uid := range o.adminUIDs {
		if uid > math.MaxUint32 {
			return cfg, usagef("", "--admin-uid %d is no uid", uid)
		}
		cfg.Policy.AdminUIDs = append(cfg.Policy.AdminUIDs, uint32(uid))
	}
	if o.socketGroup != "" {
		g, err := user.LookupGroup(o.socketGroup)
		if err != nil {
			return cfg, usagef("create the group, or leave out --socket-group", "socket group: %v", err)
		}
		if cfg.SocketGID, err = strconv.Atoi(g.Gid); err != nil {
			return cfg, fmt.Errorf("socket group: %w", err)
		}
	}
	return cfg, nil
}

// logger writes JSON lines to the App's stderr.
func (o *kmsServeOptions) logger(a *App) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(o.logLevel)
	if err != nil {
		return nil, usagef("use debug, info, warn or error", "bad log level %q", o.logLevel)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(a.Err)), level)).Named("kms"), nil
}
