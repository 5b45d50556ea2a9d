package cli

import (
	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
)

func newDiskAttach(a *App) *cobra.Command {
	var o api.AttachRequest
	c := diskArg(a, &cobra.Command{
		Use:   "attach NAME|ID",
		Short: "Attach a disk: get its key and serve it over NBD",
		Long: `Attaches a disk on this host and prints its NBD URI on stdout; what to do with it goes to
stderr. The socket belongs to you. If the daemon restarts, it attaches the disk
again by itself; after a reboot only with --boot.`,
		Example: `  sealdisk disk attach data
  uri=$(sealdisk disk attach data) && nbdinfo "$uri"
  sealdisk disk attach data --boot
  sealdisk disk attach data --accept-data-loss   # after a failed sync`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			v, err := c.Find(cmd.Context(), a.Project, args[0])
			if err != nil {
				return err
			}
			r, err := c.Attach(cmd.Context(), a.Project, v.ID, o)
			if err != nil {
				return err
			}
			return a.showAttached(r)
		},
	})
	c.Flags().BoolVar(&o.ReadOnly, "read-only", false, "refuse writes")
	c.Flags().BoolVar(&o.AtBoot, "boot", false, "attach it again after a reboot too")
	c.Flags().BoolVar(&o.AcceptDataLoss, "accept-data-loss", false, "attach though a sync failed and data may be lost")
	return c
}

func newDiskDetach(a *App) *cobra.Command {
	return diskArg(a, &cobra.Command{
		Use:   "detach NAME|ID",
		Short: "Detach a disk: finish its requests, sync it and forget its key",
		Long: `Detaches a disk: requests under way finish, new ones are refused, the data is synced and
the key is removed from memory. Unmount it first. The KMS is not asked.`,
		Example: "  sealdisk disk detach data",
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			v, err := c.Find(cmd.Context(), a.Project, args[0])
			if err != nil {
				return err
			}
			if err := c.Detach(cmd.Context(), a.Project, v.ID); err != nil {
				return err
			}
			a.Tell("Disk %s is detached.", v.Name)
			return nil
		},
	})
}
