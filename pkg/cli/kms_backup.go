package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms/dew"
	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/kmsserver"
	"sealdisk/pkg/secmem"
)

func newKMSBackup(a *App) *cobra.Command {
	var p passphraseFlags
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write an encrypted backup of the running KMS: its keys and its root key",
		Long: `Writes the store of the running KMS and its root key to FILE, encrypted under a
passphrase of its own (Argon2id, XChaCha20-Poly1305), and reads it back. Whoever has FILE
and the passphrase can open every disk whose keys are in it: keep them apart from
each other and from the disks.`,
		Example: `  sealdisk kms backup /media/usb/sealdisk-kms.backup
  sealdisk kms backup kms.backup --passphrase-file /root/backup-passphrase`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runKMSBackup(cmd.Context(), a, args[0], &p) },
	}
	p.add(c.Flags(), "passphrase of the backup")
	c.MarkFlagsMutuallyExclusive("passphrase-file", "passphrase-fd", "ask-passphrase")
	return c
}

func newKMSRestore(a *App) *cobra.Command {
	var p passphraseFlags
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the key store of STATE-DIR from a backup",
		Long: `Makes STATE-DIR/kms from a backup. The directory must be missing or empty: a restore
never replaces a key store. The daemon of that STATE-DIR must not run.`,
		Example: `  sealdisk kms restore /media/usb/sealdisk-kms.backup --state-dir /var/lib/sealdisk`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runKMSRestore(a, args[0], &p) },
	}
	p.add(c.Flags(), "passphrase of the backup")
	c.MarkFlagsMutuallyExclusive("passphrase-file", "passphrase-fd", "ask-passphrase")
	return c
}

// backupShown is what backup and restore print.
type backupShown struct {
	File    string            `json:"file"`
	StoreID string            `json:"store_id"`
	Created string            `json:"created"`
	Root    keystore.RootMode `json:"root_key"`
	Dir     string            `json:"directory,omitempty"`
}

func showBackup(a *App, file, dir string, info keystore.BackupInfo) error {
	s := backupShown{File: file, StoreID: info.StoreID, Created: formatTime(info.Created), Root: info.Root, Dir: dir}
	rows := [][]string{{"file", s.File}, {"key store", s.StoreID}, {"made", s.Created}, {"root key", string(s.Root)}}
	if dir != "" {
		rows = append(rows, []string{"restored to", dir})
	}
	return a.Emit(s, nil, rows)
}

func runKMSBackup(ctx context.Context, a *App, file string, p *passphraseFlags) (err error) {
	if err := secmem.HardenProcess(); err != nil {
		return err
	}
	if _, err := os.Lstat(file); err == nil {
		return &api.Error{Class: api.ClassConflict, Message: file + " exists, it is not replaced", Hint: "give another name"}
	}
	client := dew.NewClient(a.Socket("kms.sock"))
	defer client.Close()
	if _, err := client.Status(ctx); err != nil { // before a passphrase is asked for
		return kmsFailure(err)
	}
	pass, err := p.read(a, "Passphrase of the backup", true)
	if err != nil {
		return err
	}
	kdf := keystore.NewKDF(keystore.DefaultKDF)
	key, err := kdf.Derive(pass.Bytes())
	if err = closeAfter(pass, err); err != nil {
		return err
	}
	defer func() { err = closeAfter(key, err) }()

	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // mode 0600
	if err != nil {
		return badFile(err)
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	err = client.Backup(ctx, api.BackupRequest{Salt: hex.EncodeToString(kdf.Salt), Time: kdf.Time, Memory: kdf.Memory, Threads: kdf.Threads}, key.Bytes(), tmp)
	if err != nil {
		return errors.Join(kmsFailure(err), tmp.Close())
	}
	info, err := verifyBackup(tmp, key.Bytes())
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("the backup was written but cannot be used: %w", err)
	}
	if err := os.Link(tmp.Name(), file); err != nil {
		return badFile(err)
	}
	if err := syncParent(file); err != nil {
		return err
	}
	a.Tell("The backup was read back and is whole. It is worth nothing without its passphrase.")
	return showBackup(a, file, "", info)
}

// verifyBackup reads the backup in f, from its start, with its key.
func verifyBackup(f io.ReadSeeker, key []byte) (keystore.BackupInfo, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return keystore.BackupInfo{}, err
	}
	return keystore.VerifyBackup(f, func(keystore.KDF) (*secmem.Buffer, error) {
		buf, err := secmem.Lock(len(key))
		if err == nil {
			copy(buf.Bytes(), key)
		}
		return buf, err
	})
}

func runKMSRestore(a *App, file string, p *passphraseFlags) error {
	if err := secmem.HardenProcess(); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return badFile(err)
	}
	defer f.Close()
	if err := os.MkdirAll(a.StateDir, 0o700); err != nil {
		return badFile(err)
	}
	dir := kmsserver.StoreDir(a.StateDir)
	info, err := keystore.Restore(f, func(kdf keystore.KDF) (*secmem.Buffer, error) {
		pass, err := p.read(a, "Passphrase of the backup", false)
		if err != nil {
			return nil, err
		}
		key, err := kdf.Derive(pass.Bytes())
		return key, closeAfter(pass, err)
	}, dir)
	if err != nil {
		return err
	}
	if info.Root == keystore.RootPassphrase {
		a.Tell("The store's root key comes from its own passphrase, which the KMS needs as before.")
	} else {
		a.Tell("The root key was written to %s. A root key beside the disks does not protect a stolen host.", filepath.Join(dir, "root.key"))
	}
	return showBackup(a, file, dir, info)
}

// closeAfter destroys b, after which err or that went wrong.
func closeAfter(b *secmem.Buffer, err error) error { return errors.Join(err, b.Destroy()) }

func badFile(err error) error {
	return &api.Error{Class: api.ClassUsage, Message: err.Error(), Err: err}
}

func syncParent(file string) error {
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
