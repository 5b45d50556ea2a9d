package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"

	"sealdisk/pkg/api"
)

// Create makes a disk; the job in the reply does the work.
func (c *Client) Create(ctx context.Context, project string, v api.CreateVolume) (r api.JobResponse, err error) {
	return r, c.do(ctx, http.MethodPost, "/v2.1/"+esc(project)+"/cloudvolumes", api.CreateVolumeRequest{Volume: &v}, &r)
}

// List returns the disks of project, ordered by name; with a name, the one of that name.
func (c *Client) List(ctx context.Context, project, name string) ([]api.Volume, error) {
	var all []api.Volume
	for {
		q := url.Values{"sort_key": {"name"}, "sort_dir": {"asc"}, "offset": {strconv.Itoa(len(all))}}
		if name != "" {
			q.Set("name", name)
		}
		var r api.VolumesResponse
		if err := c.do(ctx, http.MethodGet, "/v2/"+esc(project)+"/cloudvolumes/detail?"+q.Encode(), nil, &r); err != nil {
			return nil, err
		}
		all = append(all, r.Volumes...)
		if len(all) >= r.Count || len(r.Volumes) == 0 {
			return all, nil
		}
	}
}

// Show returns the disk id.
func (c *Client) Show(ctx context.Context, project, id string) (api.Volume, error) {
	var r api.VolumeResponse
	return r.Volume, c.do(ctx, http.MethodGet, volumePath(project, id), nil, &r)
}

// Find returns a disk by its id or name.
func (c *Client) Find(ctx context.Context, project, idOrName string) (api.Volume, error) {
	if _, err := uuid.Parse(idOrName); err == nil {
		return c.Show(ctx, project, idOrName)
	}
	list, err := c.List(ctx, project, idOrName)
	if err != nil {
		return api.Volume{}, err
	}
	if len(list) == 0 || idOrName == "" {
		return api.Volume{}, &api.Error{Class: api.ClassNotFound, Code: api.CodeNotFound,
			Message: fmt.Sprintf("disk %q does not exist in project %s", idOrName, project), Hint: "sealdisk disk list shows the disks"}
	}
	return list[0], nil
}

// Delete removes the disk id; the job in the reply does the work.
func (c *Client) Delete(ctx context.Context, project, id string) (r api.JobResponse, err error) {
	return r, c.do(ctx, http.MethodDelete, volumePath(project, id), nil, &r)
}

// Attach attaches the disk id for the caller's user.
func (c *Client) Attach(ctx context.Context, project, id string, o api.AttachRequest) (r api.AttachResponse, err error) {
	return r, c.do(ctx, http.MethodPost, diskPath(project, id, "attach"), o, &r)
}

// Detach detaches the disk id. An error of a class other than conflict and not found may say that the disk is
// detached but its last sync failed.
func (c *Client) Detach(ctx context.Context, project, id string) error {
	return c.do(ctx, http.MethodPost, diskPath(project, id, "detach"), api.Empty{}, nil)
}

// Finalize makes the disk id fit for cryptsetup; the job in the reply does the work.
func (c *Client) Finalize(ctx context.Context, project, id string) (r api.JobResponse, err error) {
	return r, c.do(ctx, http.MethodPost, diskPath(project, id, "finalize"), api.Empty{}, &r)
}

// Import takes a copied disk into the catalog; the job in the reply does the work.
func (c *Client) Import(ctx context.Context, project string, o api.ImportRequest) (r api.JobResponse, err error) {
	return r, c.do(ctx, http.MethodPost, "/sealdisk/v1/"+esc(project)+"/disks/import", o, &r)
}

func volumePath(project, id string) string {
	return "/v2/" + esc(project) + "/cloudvolumes/" + esc(id)
}

func diskPath(project, id, verb string) string {
	return "/sealdisk/v1/" + esc(project) + "/disks/" + esc(id) + "/" + verb
}
