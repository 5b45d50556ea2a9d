package cli

import (
	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
)

func newDiskDelete(a *App) *cobra.Command {
	return diskArg(a, &cobra.Command{
		Use:     "delete NAME|ID",
		Aliases: []string{"rm"},
		Short:   "Delete a disk and its data, for ever",
		Long: `Deletes a disk that is not attached: its header with the wrapped key is overwritten, then
the data is removed. The KMS is not asked, and its key stays.`,
		Example: "  sealdisk disk delete data\n  sealdisk disk delete data --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			v, err := c.Find(cmd.Context(), a.Project, args[0])
			if err != nil {
				return err
			}
			if err := a.Confirm("Delete disk " + v.Name + " (" + FormatSize(v.Sealdisk.SizeBytes) + ") and all its data"); err != nil {
				return err
			}
			job, err := c.Delete(cmd.Context(), a.Project, v.ID)
			if err != nil {
				return err
			}
			_, err = c.Wait(cmd.Context(), a.Project, job.JobID)
			if api.ClassOf(err) == api.ClassNotFound { // the daemon restarted and has forgotten the job
				_, err = c.Show(cmd.Context(), a.Project, v.ID)
				if api.ClassOf(err) == api.ClassNotFound {
					err = nil
				}
			}
			if err != nil {
				return err
			}
			a.Tell("Disk %s is deleted.", v.Name)
			return nil
		},
	})
}

func newDiskImport(a *App) *cobra.Command {
	var o api.ImportRequest
	c := &cobra.Command{
		Use:   "import PATH",
		Short: "Take a copied disk into the catalog",
		Long: `Takes a disk that was copied from elsewhere into the catalog: PATH is its disk.img or the
directory that holds it. The KMS must be reachable and have the disk's key. The image is
copied, unless it already stands in its place below the state directory.
An image without a LUKS2 header is refused unless --unencrypted demands it.`,
		Example: `  sealdisk disk import /backup/8f6c…/disk.img
  sealdisk disk import /backup/8f6c… --name restored
  sealdisk disk import /tmp/raw.img --unencrypted --name scratch`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := absolute(args[0])
			if err != nil {
				return err
			}
			o.Path = path
			c := a.client()
			job, err := c.Import(cmd.Context(), a.Project, o)
			if err != nil {
				return err
			}
			v, err := a.wait(cmd.Context(), c, job)
			if err != nil {
				return err
			}
			return showDisk(a, v)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "name of the disk; default the name in its header")
	c.Flags().BoolVar(&o.Unencrypted, "unencrypted", false, "the image is raw data")
	c.Flags().IntVar(&o.BlockSize, "block-size", 512, "logical block size: 512 or 4096 bytes")
	return c
}
