package kmsserver_test

import (
	"testing"

	"sealdisk/pkg/kms/dew"
	"sealdisk/pkg/kms/kmstest"
)

// The one suite of all providers, over a real socket.
func TestProviderSuite(t *testing.T) {
	kmstest.Suite(t, func(t *testing.T) kmstest.Service {
		in := start(t, tempDir(t))
		admin := dew.NewClient(in.socket)
		t.Cleanup(admin.Close)
		must := func(t *testing.T, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		s := kmstest.Service{
			Provider: dew.New(in.socket),
			Project:  project,
			CreateKey: func(t *testing.T, name string) string {
				id, err := admin.CreateKey(t.Context(), project, name, "")
				must(t, err)
				return id
			},
			Disable: func(t *testing.T, id string) { _, err := admin.DisableKey(t.Context(), project, id); must(t, err) },
			Enable:  func(t *testing.T, id string) { _, err := admin.EnableKey(t.Context(), project, id); must(t, err) },
			SetAgency: func(t *testing.T, granted bool) {
				f := admin.RevokeAgency
				if granted {
					f = admin.GrantAgency
				}
				_, err := f(t.Context(), project)
				must(t, err)
			},
			Stop: func(t *testing.T) { must(t, in.stop()) },
		}
		s.SetAgency(t, true)
		return s
	})
}
