package cli

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/dew"
)

func newKey(a *App) *cobra.Command {
	return group("key", "Manage the keys that disks are encrypted with",
		newKeyCreate(a), newKeyList(a), newKeyShow(a), newKeyEnable(a), newKeyDisable(a))
}

// withKMS runs f with an administrator's client of the KMS in the run directory.
func withKMS(cmd *cobra.Command, a *App, f func(context.Context, *dew.Client) error) error {
	c := dew.NewClient(a.Socket("kms.sock"))
	defer c.Close()
	return kmsFailure(f(cmd.Context(), c))
}

// keyView is a key as the commands show it.
type keyView struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Project     string `json:"project"`
	State       string `json:"state"`
	StateCode   int    `json:"state_code"`
	Default     bool   `json:"default"`
	Created     string `json:"created"`
	Version     string `json:"version,omitempty"`
	Description string `json:"description,omitempty"`
}

// stateNames are the reference's words.
var stateNames = map[kms.State]string{
	kms.StatePendingActivation: "pending activation",
	kms.StateEnabled:           "enabled",
	kms.StateDisabled:          "disabled",
	kms.StatePendingDeletion:   "pending deletion",
	kms.StatePendingImport:     "pending import",
	kms.StateFrozen:            "frozen",
}

func viewKey(project string, d api.KeyDetails) keyView {
	v := keyView{ID: d.KeyID, Name: d.KeyAlias, Project: project, Default: d.DefaultKeyFlag == "1", Version: d.KeyVersion, Description: d.KeyDescription}
	state, err := dew.ParseState(d.KeyState)
	v.StateCode = int(state)
	if v.State = stateNames[state]; v.State == "" || err != nil {
		v.State = "unknown"
	}
	if ms, err := strconv.ParseInt(d.CreationDate, 10, 64); err == nil {
		v.Created = formatTime(time.UnixMilli(ms))
	}
	return v
}

func (v keyView) row() []string {
	return []string{v.Name, v.ID, v.State, yesNo(v.Default), v.Created}
}

var keyHeader = []string{"NAME", "ID", "STATE", "DEFAULT", "CREATED"}

func showKey(a *App, v keyView) error {
	return a.Emit(v, nil, [][]string{{"name", v.Name}, {"id", v.ID}, {"project", v.Project}, {"state", v.State},
		{"default", yesNo(v.Default)}, {"created", v.Created}, {"version", v.Version}, {"description", v.Description}})
}

func newKeyCreate(a *App) *cobra.Command {
	var description string
	c := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make a custom key",
		Example: "  sealdisk key create payroll --description \"disks of the payroll hosts\"",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKMS(cmd, a, func(ctx context.Context, c *dew.Client) error {
				id, err := c.CreateKey(ctx, a.Project, args[0], description)
				if err != nil {
					return err
				}
				d, err := c.ShowKey(ctx, a.Project, id)
				if err != nil {
					return err
				}
				return showKey(a, viewKey(a.Project, d))
			})
		},
	}
	c.Flags().StringVar(&description, "description", "", "what the key is for, up to 255 characters")
	return c
}

func newKeyList(a *App) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the project's keys",
		Example: "  sealdisk key list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKMS(cmd, a, func(ctx context.Context, c *dew.Client) error {
				all, err := c.ListKeys(ctx, a.Project)
				if err != nil {
					return err
				}
				views, rows := make([]keyView, len(all)), make([][]string, len(all))
				for i, d := range all {
					views[i] = viewKey(a.Project, d)
					rows[i] = views[i].row()
				}
				return a.Emit(views, keyHeader, rows)
			})
		},
	}
}

func newKeyShow(a *App) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME|ID",
		Short:             "Show a key",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeOneKey(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKMS(cmd, a, func(ctx context.Context, c *dew.Client) error {
				d, err := c.ShowKey(ctx, a.Project, args[0])
				if err != nil {
					return err
				}
				return showKey(a, viewKey(a.Project, d))
			})
		},
	}
}

func newKeyEnable(a *App) *cobra.Command {
	return &cobra.Command{
		Use:               "enable NAME|ID",
		Short:             "Enable a disabled key: its disks can be attached again",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeOneKey(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKMS(cmd, a, func(ctx context.Context, c *dew.Client) error {
				if _, err := c.EnableKey(ctx, a.Project, args[0]); err != nil {
					return err
				}
				a.Tell("Key %s is enabled.", args[0])
				return nil
			})
		},
	}
}

func newKeyDisable(a *App) *cobra.Command {
	return &cobra.Command{
		Use:   "disable NAME|ID",
		Short: "Disable a key: its disks can no longer be attached",
		Long: `Disables a key until it is enabled again. Meanwhile no disk can be made with it, and
disks that are encrypted with it cannot be attached. Disks that are attached go on
with the data key in memory, which is not guaranteed for ever; once detached, they
stay so. A default key (evs/default) cannot be disabled.`,
		Example:           "  sealdisk key disable payroll --yes",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeOneKey(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKMS(cmd, a, func(ctx context.Context, c *dew.Client) error {
				d, err := c.ShowKey(ctx, a.Project, args[0])
				if err != nil {
					return err
				}
				if d.DefaultKeyFlag == "1" { // the KMS says why not
					_, err := c.DisableKey(ctx, a.Project, d.KeyID)
					return err
				}
				a.Tell("Until key %s is enabled again, disks encrypted with it cannot be attached, and none can be made.", viewKey(a.Project, d).Name)
				a.Tell("Attached disks go on with the data key in memory; once detached they stay detached.")
				if err := a.Confirm("Disable key " + args[0]); err != nil {
					return err
				}
				if _, err := c.DisableKey(ctx, a.Project, d.KeyID); err != nil {
					return err
				}
				a.Tell("Key %s is disabled.", args[0])
				return nil
			})
		},
	}
}

// completeKeys offers the names of the project's keys.
func completeKeys(a *App) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		if err := a.resolve(os.Getenv); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		c := dew.NewClient(a.Socket("kms.sock"))
		defer c.Close()
		keys, err := c.ListKeys(ctx, a.Project)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := make([]string, len(keys))
		for i, k := range keys {
			names[i] = k.KeyAlias
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeOneKey is completeKeys for a command that takes one.
func completeOneKey(a *App) cobra.CompletionFunc {
	names := completeKeys(a)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(cmd, args, prefix)
	}
}
