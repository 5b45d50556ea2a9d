package apiserver

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/disk"
)

func TestCreateTranslatesEVS(t *testing.T) {
	for name, c := range map[string]struct {
		volume string
		want   disk.CreateOptions
	}{
		"EVS, unencrypted": {`{"availability_zone":"az1","name":"a","size":10,"volume_type":"SSD"}`,
			disk.CreateOptions{Project: "default", Name: "a", Size: 10 << 30, VolumeType: "SSD"}},
		"EVS, encrypted": {`{"name":"a","size":1,"count":1,"multiattach":false,"metadata":{"__system__encrypted":"1","__system__cmkid":"` + keyID + `","create_for_volume_id":"true"}}`,
			disk.CreateOptions{Project: "default", Name: "a", Size: 1 << 30, Encrypted: true, Key: keyID}},
		"default key": {`{"name":"a","size":1,"metadata":{"__system__encrypted":"1"}}`,
			disk.CreateOptions{Project: "default", Name: "a", Size: 1 << 30, Encrypted: true}},
		"encrypted 0": {`{"name":"a","size":1,"metadata":{"__system__encrypted":"0"}}`,
			disk.CreateOptions{Project: "default", Name: "a", Size: 1 << 30}},
		"additions": {`{"name":"a","size":1,"description":"d","sealdisk":{"size_bytes":104857600,"sector_size":512,"block_size":4096,"no_discard":true,"preallocate":true}}`,
			disk.CreateOptions{Project: "default", Name: "a", Size: 100 << 20, Description: "d", SectorSize: 512, BlockSize: 4096, NoDiscard: true, Preallocate: true}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			reply, _ := b.expect(202, "POST", "/v2.1/default/cloudvolumes", `{"volume":`+c.volume+`}`)
			if fmt.Sprintf("%+v", *b.disks.created) != fmt.Sprintf("%+v", c.want) {
				t.Errorf("got  %+v\nwant %+v", *b.disks.created, c.want)
			}
			if reply["job_id"] != jobID || reply["volume_ids"].([]any)[0] != diskID {
				t.Errorf("%v", reply)
			}
		})
	}
}

// TestCreateRefusesWhatItWouldIgnore: silence would be a lie.
func TestCreateRefusesWhatItWouldIgnore(t *testing.T) {
	for name, body := range map[string]string{
		"no volume":        `{}`,
		"server":           `{"server_id":"x","volume":{"name":"a","size":1}}`,
		"prepaid":          `{"bssParam":{"chargingMode":"prePaid"},"volume":{"name":"a","size":1}}`,
		"storage pool":     `{"OS-SCH-HNT:scheduler_hints":{"dedicated_storage_id":"x"},"volume":{"name":"a","size":1}}`,
		"backup":           `{"volume":{"name":"a","size":1,"backup_id":"x"}}`,
		"image":            `{"volume":{"name":"a","size":1,"imageRef":"x"}}`,
		"snapshot":         `{"volume":{"name":"a","size":1,"snapshot_id":"x"}}`,
		"shared":           `{"volume":{"name":"a","size":1,"multiattach":true}}`,
		"many":             `{"volume":{"name":"a","size":1,"count":2}}`,
		"none":             `{"volume":{"name":"a","size":1,"count":0}}`,
		"iops":             `{"volume":{"name":"a","size":1,"iops":3000}}`,
		"throughput":       `{"volume":{"name":"a","size":1,"throughput":125}}`,
		"SCSI":             `{"volume":{"name":"a","size":1,"metadata":{"hw:passthrough":"true"}}}`,
		"key, unencrypted": `{"volume":{"name":"a","size":1,"metadata":{"__system__cmkid":"` + keyID + `"}}}`,
		"encrypted yes":    `{"volume":{"name":"a","size":1,"metadata":{"__system__encrypted":"yes"}}}`,
		"encrypted true":   `{"volume":{"name":"a","size":1,"metadata":{"__system__encrypted":"true"}}}`,
		"negative size":    `{"volume":{"name":"a","size":-1}}`,
		"huge size":        `{"volume":{"name":"a","size":9223372036854775807}}`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.expect(400, "POST", "/v2.1/default/cloudvolumes", body)
			if b.disks.created != nil {
				t.Fatalf("created %+v", b.disks.created)
			}
		})
	}
}

func TestVolumeAsEVSShowsIt(t *testing.T) {
	reply, _ := newBench(t).expect(200, "GET", fill("/v2/{project}/cloudvolumes/{id}"), "")
	v := reply["volume"].(map[string]any)
	for field, want := range map[string]string{
		"id": diskID, "status": "in-use", "size": "1", "encrypted": "true", "bootable": "false", "shareable": "false", "multiattach": "false",
		"service_type": "EVS", "created_at": "2026-03-04T05:06:07.000089", "os-vol-tenant-attr:tenant_id": "default", "links": "[]",
	} {
		if got := fmt.Sprint(v[field]); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	meta := v["metadata"].(map[string]any)
	if meta["__system__encrypted"] != "1" || meta["__system__cmkid"] != keyID {
		t.Errorf("metadata %v", meta)
	}
	a := v["attachments"].([]any)[0].(map[string]any)
	if a["volume_id"] != diskID || a["host_name"] != "host" {
		t.Errorf("attachment %v", a)
	}
	x := v["sealdisk"].(map[string]any)
	if x["uri"] != "nbd+unix:///data?socket=/run/x.sock" || fmt.Sprint(x["size_bytes"]) != "1.048576e+08" || x["key_memory"] != "memfd_secret" || fmt.Sprint(x["connections"]) != "3" {
		t.Errorf("sealdisk %v", x)
	}
}

// TestNoReplyHoldsAWrappedKey: not even the wrapped form leaves by this API.
func TestNoReplyHoldsAWrappedKey(t *testing.T) {
	b := newBench(t)
	for _, rt := range routes {
		w := b.ask(rt.method, fill(rt.path), "")
		for _, word := range []string{"wrapped", "cipher_text", "plain_text", "passphrase"} {
			if strings.Contains(strings.ToLower(w.Body.String()), word) {
				t.Errorf("%s %s: %s", rt.method, rt.path, w.Body)
			}
		}
	}
}

func TestListFilters(t *testing.T) {
	b := newBench(t)
	b.disks.list = nil
	for i := range 5 {
		b.disks.list = append(b.disks.list, disk.Info{Record: disk.Record{
			ID: fmt.Sprintf("id-%d", i), Name: fmt.Sprintf("disk-%d", 4-i), State: []disk.State{"available", "in-use"}[i%2],
			Size: int64(i+1) << 30, Created: someTime.Add(time.Duration(i) * time.Hour)}})
	}
	for query, want := range map[string]string{
		"":                                       "id-4 id-3 id-2 id-1 id-0", // newest first
		"sort_dir=asc":                           "id-0 id-1 id-2 id-3 id-4",
		"sort_key=name&sort_dir=asc":             "id-4 id-3 id-2 id-1 id-0",
		"sort_key=size":                          "id-4 id-3 id-2 id-1 id-0",
		"name=disk-3":                            "id-1",
		"name=nothing":                           "",
		"status=in-use":                          "id-3 id-1",
		"id=id-2":                                "id-2",
		"ids=%5B'id-1','id-3'%5D&id=id-2":        "id-3 id-1",
		"limit=2":                                "id-4 id-3",
		"limit=2&offset=3":                       "id-1 id-0",
		"offset=9":                               "",
		"marker=id-2&limit=1":                    "id-1",
		"sort_key=id&sort_dir=asc&status=in-use": "id-1 id-3",
	} {
		t.Run(query, func(t *testing.T) {
			w := b.ask("GET", "/v2/default/cloudvolumes/detail?"+query, "")
			var r api.VolumesResponse
			if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			var ids []string
			for _, v := range r.Volumes {
				ids = append(ids, v.ID)
			}
			if got := strings.Join(ids, " "); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
			if r.Volumes == nil {
				t.Fatal("null instead of []")
			}
		})
	}
	for _, query := range []string{"limit=0", "limit=x", "limit=1001", "offset=-1", "sort_key=secret", "sort_dir=up", "metadata=x", "multiattach=true"} {
		b.expect(400, "GET", "/v2/default/cloudvolumes/detail?"+query, "")
	}
}

func TestAttachAndImportPassEverythingOn(t *testing.T) {
	b := newBench(t)
	reply, _ := b.expect(200, "POST", fill("/sealdisk/v1/{project}/disks/{id}/attach"), `{"read_only":true,"at_boot":true,"accept_data_loss":true}`)
	if *b.disks.attached != (disk.AttachOptions{UID: 7, GID: 8, ReadOnly: true, AtBoot: true, AcceptDataLoss: true}) {
		t.Fatalf("%+v", b.disks.attached) // the peer's ids, not the body's
	}
	if reply["uri"] != "nbd+unix:///data?socket=/run/x.sock" || reply["read_only"] != true {
		t.Fatalf("%v", reply)
	}
	b.expect(202, "POST", "/sealdisk/v1/default/disks/import", `{"path":"/p","name":"n","unencrypted":true,"block_size":4096}`)
	if *b.disks.imported != (disk.ImportOptions{Project: "default", Path: "/p", Name: "n", Unencrypted: true, BlockSize: 4096}) {
		t.Fatalf("%+v", b.disks.imported)
	}
}

func TestJobAsEVSShowsIt(t *testing.T) {
	b := newBench(t)
	reply, _ := b.expect(200, "GET", "/v1/default/jobs/"+jobID, "")
	e := reply["entities"].(map[string]any)
	if reply["status"] != "RUNNING" || reply["job_type"] != "createVolume" || reply["end_time"] != "" || e["volume_id"] != diskID || e["name"] != "data" {
		t.Fatalf("%v", reply)
	}
	b.expect(404, "GET", "/v1/default/jobs/"+url.PathEscape("other"), "")
}
