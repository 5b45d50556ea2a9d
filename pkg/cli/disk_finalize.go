package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/disk"
	"sealdisk/pkg/secmem"
)

func newDiskFinalize(a *App) *cobra.Command {
	var keyFile string
	c := diskArg(a, &cobra.Command{
		Use:   "finalize NAME|ID | finalize FILE --volume-key-file F",
		Short: "Make a disk fit for cryptsetup: fill its holes with encrypted zeros",
		Long: `Fills the holes of a detached disk with encrypted zeros and then clears the header's
requirement, so that cryptsetup and dm-crypt open it. There is no way back: the disk takes its
full size and TRIM gives nothing back any more. Interrupted, it goes on where it stopped.

With --volume-key-file it works on an image file, without daemon and KMS. F holds the
data key as it is, 64 bytes; "-" reads it from standard input.`,
		Example: `  sealdisk disk finalize data
  sealdisk disk finalize /mnt/old/disk.img --volume-key-file key.bin --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyFile != "" {
				return finalizeFile(cmd.Context(), a, args[0], keyFile)
			}
			return finalizeDisk(cmd.Context(), a, args[0])
		},
	})
	c.Flags().StringVar(&keyFile, "volume-key-file", "", "file with the data key: work on an image file, offline")
	return c
}

func finalizeDisk(ctx context.Context, a *App, name string) error {
	c := a.client()
	v, err := c.Find(ctx, a.Project, name)
	if err != nil {
		return err
	}
	if err := a.Confirm("Finalize disk " + v.Name + ": it will take " + FormatSize(v.Sealdisk.SizeBytes) + " and there is no way back"); err != nil {
		return err
	}
	job, err := c.Finalize(ctx, a.Project, v.ID)
	if err != nil {
		return err
	}
	if _, err := c.Wait(ctx, a.Project, job.JobID); err != nil {
		return err
	}
	a.Tell("Disk %s is finalized.", v.Name)
	return nil
}

func finalizeFile(ctx context.Context, a *App, path, keyFile string) error {
	if err := secmem.HardenProcess(); err != nil {
		return err
	}
	if err := a.Confirm("Finalize " + path + ": it will take its full size and there is no way back"); err != nil {
		return err
	}
	buf, err := secmem.Lock(secmem.PageSize)
	if err != nil {
		return &api.Error{Class: api.ClassNoSpace, Message: err.Error(), Hint: "raise the limit of locked memory (ulimit -l)", Err: err}
	}
	defer buf.Destroy()
	key, err := readVolumeKey(a, keyFile, buf.Bytes())
	if err != nil {
		return err
	}
	done, err := disk.FinalizeFile(ctx, path, key, a.progress("filling holes"))
	if err != nil {
		return err
	}
	if !done {
		a.Tell("%s has no holes already.", path)
		return nil
	}
	a.Tell("%s is finalized.", path)
	return nil
}

// readVolumeKey reads the key into buf and returns that part of it.
func readVolumeKey(a *App, name string, buf []byte) ([]byte, error) {
	in := a.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, &api.Error{Class: api.ClassUsage, Message: err.Error(), Err: err}
		}
		defer f.Close()
		in = f
	}
	n, err := io.ReadFull(in, buf[:luks2.KeySize+1])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, &api.Error{Class: api.ClassUsage, Message: "read the volume key: " + err.Error(), Err: err}
	}
	if n != luks2.KeySize {
		return nil, usagef("the file holds the data key as it is, without a line end or an encoding", "%s does not hold a volume key of %d bytes", name, luks2.KeySize)
	}
	return buf[:n], nil
}

// progress tells on a terminal how far something is.
func (a *App) progress(what string) func(done, total int64) {
	f, ok := a.Err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	last := int64(-1)
	return func(done, total int64) {
		if p := done * 100 / max(total, 1); p != last {
			last = p
			end := ""
			if done == total {
				end = "\n"
			}
			_, _ = io.WriteString(a.Err, "\r"+what+": "+strconv.FormatInt(p, 10)+"%"+end)
		}
	}
}

func absolute(path string) (string, error) {
	p, err := filepath.Abs(path)
	if err != nil {
		return "", usagef("", "%s: %v", path, err)
	}
	return p, nil
}
