package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
	"sealdisk/pkg/client"
)

func newDisk(a *App) *cobra.Command {
	return group("disk", "Create, attach and manage disks",
		newDiskCreate(a), newDiskList(a), newDiskShow(a), newDiskAttach(a), newDiskDetach(a),
		newDiskDelete(a), newDiskFinalize(a), newDiskImport(a))
}

func (a *App) client() *client.Client { return client.New(a.Socket("api.sock")) }

// diskArg wants one disk, by name or id, and completes names.
func diskArg(a *App, c *cobra.Command) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 || a.resolve(os.Getenv) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		list, err := a.client().List(ctx, a.Project, "")
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, v := range list {
			names = append(names, v.Name+"\t"+FormatSize(v.Sealdisk.SizeBytes)+", "+v.Status)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// showDisk writes one disk.
func showDisk(a *App, v api.Volume) error {
	x := v.Sealdisk
	rows := [][]string{{"name", v.Name}, {"id", v.ID}, {"project", v.TenantID}, {"state", v.Status}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("task", x.Task)
	add("reason", x.Reason)
	add("size", FormatSize(x.SizeBytes))
	add("block size", strconv.Itoa(x.BlockSize))
	add("encrypted", yesNo(v.Encrypted))
	if v.Encrypted {
		add("key", x.KeyID)
		add("kms", x.Provider)
		add("sector size", strconv.Itoa(x.SectorSize))
		add("finalized", yesNo(!x.Holes))
	}
	add("discard", yesNo(x.Discard))
	if x.Preallocated {
		add("preallocated", "yes")
	}
	add("sync failed", x.SyncFailed)
	add("uri", x.URI)
	if x.URI != "" {
		add("connections", strconv.Itoa(x.Connections))
	}
	add("key memory", x.KeyMemory)
	if x.Wished {
		wish := fmt.Sprintf("for uid %d, again after a restart of the daemon", x.AttachUID)
		if x.AtBoot {
			wish += " or of the host"
		}
		if x.ReadOnly {
			wish += ", read-only"
		}
		add("attached", wish)
	}
	add("description", v.Description)
	add("created", showTime(v.CreatedAt))
	add("updated", showTime(v.UpdatedAt))
	return a.Emit(v, nil, rows)
}

func showTime(s string) string {
	t, err := time.Parse(api.TimeFormat, s)
	if err != nil {
		return s
	}
	return formatTime(t)
}

func newDiskList(a *App) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the disks of the project",
		Example: "  sealdisk disk list\n  sealdisk disk list --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().List(cmd.Context(), a.Project, "")
			if err != nil {
				return err
			}
			if list == nil {
				list = []api.Volume{} // [] in JSON
			}
			rows := make([][]string, len(list))
			for i, v := range list {
				rows[i] = []string{v.Name, v.ID, FormatSize(v.Sealdisk.SizeBytes), v.Status, yesNo(v.Encrypted), v.Sealdisk.Task}
			}
			return a.Emit(list, []string{"NAME", "ID", "SIZE", "STATE", "ENCRYPTED", "TASK"}, rows)
		},
	}
}

func newDiskShow(a *App) *cobra.Command {
	return diskArg(a, &cobra.Command{
		Use:     "show NAME|ID",
		Short:   "Show a disk: its state, key and, while attached, its URI",
		Example: "  sealdisk disk show data\n  sealdisk disk show data --output json",
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := a.client().Find(cmd.Context(), a.Project, args[0])
			if err != nil {
				return err
			}
			return showDisk(a, v)
		},
	})
}

// wait waits for a job of disk id and returns the disk as it is then.
func (a *App) wait(ctx context.Context, c *client.Client, job api.JobResponse) (api.Volume, error) {
	j, err := c.Wait(ctx, a.Project, job.JobID)
	if err != nil {
		return api.Volume{}, err
	}
	return c.Show(ctx, a.Project, j.Entities.VolumeID)
}

// nbdClientLine is the command that makes a block device of an attached disk.
func nbdClientLine(r api.AttachResponse) string {
	u, err := url.Parse(r.URI)
	if err != nil {
		return ""
	}
	line := fmt.Sprintf("nbd-client -unix %s /dev/nbd0 -N %s", u.Query().Get("socket"), r.Name)
	if r.BlockSize != 512 {
		line += fmt.Sprintf(" -b %d", r.BlockSize)
	}
	if r.ReadOnly {
		line += " -R"
	}
	return line
}

// showAttached writes the URI to stdout and what to do with it to stderr.
func (a *App) showAttached(r api.AttachResponse) error {
	if r.KeyMemory == "mlock" {
		a.Tell("This kernel gives no memfd_secret: the key is in locked memory that root can read.")
	}
	a.Tell("To use it as a block device: %s", nbdClientLine(r))
	if a.Output == "json" {
		return a.Emit(r, nil, nil)
	}
	_, err := fmt.Fprintln(a.Out, r.URI)
	return err
}
