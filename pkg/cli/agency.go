package cli

import (
	"context"

	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms/dew"
)

func newAgency(a *App) *cobra.Command {
	return group("agency", "Let the disk service (EVS) use the KMS for a project", newAgencyGrant(a), newAgencyShow(a), newAgencyRevoke(a))
}

func showAgency(a *App, g api.Agency) error {
	return a.Emit(g, nil, [][]string{{"project", g.Project}, {"granted", yesNo(g.Granted)}, {"granted at", g.GrantedAt},
		{"granted by", g.GrantedBy}, {"default key", g.DefaultKey}})
}

func newAgencyGrant(a *App) *cobra.Command {
	return &cobra.Command{
		Use:   "grant",
		Short: "Grant EVS the use of the project's keys, and make the default key evs/default",
		Long: `Grants EVS the use of the KMS on behalf of the project. It takes a Security
Administrator (root, or the user that runs the daemon), once for each project; afterwards
every user of the project can use disk encryption. Granting makes the default key
evs/default.`,
		Example: "  sealdisk agency grant\n  sealdisk agency grant --project payroll",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKMS(cmd, a, func(ctx context.Context, c *dew.Client) error {
				g, err := c.GrantAgency(ctx, a.Project)
				if err != nil {
					return err
				}
				return showAgency(a, g)
			})
		},
	}
}

func newAgencyShow(a *App) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show whether EVS may use the project's keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKMS(cmd, a, func(ctx context.Context, c *dew.Client) error {
				g, err := c.ShowAgency(ctx, a.Project)
				if err != nil {
					return err
				}
				return showAgency(a, g)
			})
		},
	}
}

func newAgencyRevoke(a *App) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke",
		Short: "Take the use of the project's keys from EVS: its disks can no longer be attached",
		Long: `Takes the agency back. No encrypted disk of the project can then be made or attached
until it is granted again; attached disks go on with the data key in memory. Keys stay.`,
		Example: "  sealdisk agency revoke --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKMS(cmd, a, func(ctx context.Context, c *dew.Client) error {
				a.Tell("Until it is granted again, no encrypted disk of project %s can be made or attached.", a.Project)
				a.Tell("Attached disks go on with the data key in memory; once detached they stay detached.")
				if err := a.Confirm("Revoke the agency of project " + a.Project); err != nil {
					return err
				}
				g, err := c.RevokeAgency(ctx, a.Project)
				if err != nil {
					return err
				}
				return showAgency(a, g)
			})
		},
	}
}
