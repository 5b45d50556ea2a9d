package cli

import (
	"context"

	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms/dew"
)

type diskCreateOptions struct {
	size        string
	key         string
	unencrypted bool
	sectorSize  int
	blockSize   int
	discard     string
	preallocate bool
	authorize   bool
	attach      bool
	description string
}

func newDiskCreate(a *App) *cobra.Command {
	var o diskCreateOptions
	c := &cobra.Command{
		Use:   "create NAME --size SIZE",
		Short: "Create a disk, encrypted unless told otherwise",
		Long: `Creates a disk and waits until it is available. Whether it is encrypted, and with
which key, can't be changed later. Without --key the project's default key evs/default is
used. --size 10G is 10 GiB; a size is a multiple of 4096 bytes.`,
		Example: `  sealdisk disk create data --size 10G
  sealdisk disk create data --size 10G --key payroll --attach
  sealdisk disk create first --size 1T --authorize      # grants the agency too
  sealdisk disk create scratch --size 100M --unencrypted
  sealdisk disk create quiet --size 10G --discard off   # hides what is allocated`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), a, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.size, "size", "", "size, e.g. 10G (GiB), 512M")
	f.StringVar(&o.key, "key", "", "name or id of the key; default evs/default")
	f.BoolVar(&o.unencrypted, "unencrypted", false, "do not encrypt the disk, ever")
	f.IntVar(&o.sectorSize, "sector-size", 4096, "sector size of the encryption: 512 or 4096 bytes")
	f.IntVar(&o.blockSize, "block-size", 512, "logical block size: 512 or 4096 bytes")
	f.StringVar(&o.discard, "discard", "on", "on: TRIM gives storage back; off: the disk is filled with encrypted zeros and never has holes")
	f.BoolVar(&o.preallocate, "preallocate", false, "reserve all storage now")
	f.BoolVar(&o.authorize, "authorize", false, "grant the project's agency first (Security Administrators)")
	f.BoolVar(&o.attach, "attach", false, "attach the disk, as sealdisk disk attach does")
	f.StringVar(&o.description, "description", "", "description")
	must(c.MarkFlagRequired("size"))
	must(c.RegisterFlagCompletionFunc("size", cobra.NoFileCompletions))
	must(c.RegisterFlagCompletionFunc("key", completeKeys(a)))
	must(c.RegisterFlagCompletionFunc("discard", cobra.FixedCompletions([]string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp)))
	for _, name := range []string{"sector-size", "block-size"} {
		must(c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions([]string{"512", "4096"}, cobra.ShellCompDirectiveNoFileComp)))
	}
	return c
}

// volume checks what can be checked here and describes the disk to the daemon.
func (o *diskCreateOptions) volume(name string) (v api.CreateVolume, err error) {
	size, err := ParseSize(o.size)
	if err != nil {
		return v, err
	}
	if o.discard != "on" && o.discard != "off" {
		return v, usagef("", "--discard is on or off, not %q", o.discard)
	}
	if o.unencrypted && (o.key != "" || o.authorize) {
		return v, usagef("leave out --unencrypted, or --key and --authorize", "an unencrypted disk has no key")
	}
	v = api.CreateVolume{Name: name, Description: o.description, Size: (size + 1<<30 - 1) >> 30, Metadata: map[string]string{},
		Sealdisk: &api.CreateVolumeExtra{SizeBytes: size, SectorSize: o.sectorSize, BlockSize: o.blockSize,
			NoDiscard: o.discard == "off", Preallocate: o.preallocate}}
	if !o.unencrypted {
		v.Metadata[api.MetaEncrypted] = "1"
		if o.key != "" {
			v.Metadata[api.MetaKeyID] = o.key
		}
	}
	return v, nil
}

func (o *diskCreateOptions) run(ctx context.Context, a *App, name string) error {
	v, err := o.volume(name)
	if err != nil {
		return err
	}
	if o.authorize {
		kms := dew.NewClient(a.Socket("kms.sock"))
		defer kms.Close()
		if _, err := kms.GrantAgency(ctx, a.Project); err != nil {
			return kmsFailure(err)
		}
	}
	c := a.client()
	job, err := c.Create(ctx, a.Project, v)
	if err != nil {
		return err
	}
	disk, err := a.wait(ctx, c, job)
	if err != nil {
		return err
	}
	if !o.attach {
		return showDisk(a, disk)
	}
	a.Tell("Disk %s is created.", name)
	r, err := c.Attach(ctx, a.Project, disk.ID, api.AttachRequest{})
	if err != nil {
		return err
	}
	return a.showAttached(r)
}
