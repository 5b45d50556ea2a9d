package kmsserver

import (
	"fmt"
	"strconv"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/logfield"
)

const maxPage = 1000 // keys in one page of list-keys

// oneOf refuses a value of an optional field that this KMS cannot do.
func oneOf(field, got, only string) error {
	if got == "" || got == only {
		return nil
	}
	return badParameter(fmt.Sprintf("%s %.32q: this KMS makes %s only", field, got, only))
}

func (s *Server) createKey(c *call) (any, error) {
	var q api.CreateKeyRequest
	if err := c.decode(&q); err != nil {
		return nil, err
	}
	if q.KeyAlias == "" {
		return nil, missing("key_alias")
	}
	for _, f := range [][3]string{{"key_spec", q.KeySpec, "AES_256"}, {"key_usage", q.KeyUsage, "ENCRYPT_DECRYPT"}, {"origin", q.Origin, "kms"}} {
		if err := oneOf(f[0], f[1], f[2]); err != nil {
			return nil, err
		}
	}
	k, err := s.store.CreateKey(c.project, q.KeyAlias, q.KeyDescription)
	if err != nil {
		return nil, err
	}
	s.audit(c, logfield.Key(k.ID))
	return api.CreateKeyResponse{KeyInfo: api.NewKey{KeyID: k.ID, DomainID: k.Project}}, nil
}

// details shows k as DEW does.
func details(k keystore.Key) api.KeyDetails {
	flag := "0"
	if k.Default {
		flag = "1"
	}
	return api.KeyDetails{
		KeyID: k.ID, DomainID: k.Project, KeyAlias: k.Alias, Realm: "local",
		KeySpec: "AES_256", KeyUsage: "ENCRYPT_DECRYPT", KeyDescription: k.Description,
		CreationDate: strconv.FormatInt(k.Created.UnixMilli(), 10),
		KeyState:     strconv.Itoa(int(k.State)), DefaultKeyFlag: flag, KeyType: "1", Origin: "kms",
		KeyRotationEnabled: "false", SysEnterpriseProject: "0", KeyVersion: k.Version,
	}
}

// keyRequest decodes the body of the operations on one key.
func (c *call) keyRequest() (string, error) {
	var q api.KeyRequest
	if err := c.decode(&q); err != nil {
		return "", err
	}
	if q.KeyID == "" {
		return "", missing("key_id")
	}
	return q.KeyID, nil
}

func (s *Server) describeKey(c *call) (any, error) {
	ref, err := c.keyRequest()
	if err != nil {
		return nil, err
	}
	k, err := s.store.Key(c.project, ref)
	if err != nil {
		return nil, err
	}
	return api.DescribeKeyResponse{KeyInfo: details(k)}, nil
}

func (s *Server) enableKey(c *call) (any, error)  { return s.changeState(c, s.store.Enable) }
func (s *Server) disableKey(c *call) (any, error) { return s.changeState(c, s.store.Disable) }

func (s *Server) changeState(c *call, change func(project, ref string) (keystore.Key, error)) (any, error) {
	ref, err := c.keyRequest()
	if err != nil {
		return nil, err
	}
	k, err := change(c.project, ref)
	if err != nil {
		return nil, err
	}
	s.audit(c, logfield.Key(k.ID))
	return api.KeyStatusResponse{KeyInfo: api.KeyStatus{KeyID: k.ID, KeyState: strconv.Itoa(int(k.State))}}, nil
}

func (s *Server) listKeys(c *call) (any, error) {
	var q api.ListKeysRequest
	if len(c.body) > 0 {
		if err := c.decode(&q); err != nil {
			return nil, err
		}
	}
	limit, err := number(q.Limit, maxPage, 1, maxPage)
	if err != nil {
		return nil, &reply{400, api.CodeKMSLimit, fmt.Sprintf("limit must be from 1 to %d", maxPage)}
	}
	marker, err := number(q.Marker, 0, 0, 1<<30)
	if err != nil {
		return nil, &reply{400, api.CodeKMSMarker, "marker must be a number from 0"}
	}
	state, err := number(q.KeyState, 0, 1, 7)
	if err != nil {
		return nil, badParameter("key_state must be from 1 to 7")
	}
	all, err := s.store.Keys(c.project)
	if err != nil {
		return nil, err
	}
	rsp := api.ListKeysResponse{Keys: []string{}, KeyDetails: []api.KeyDetails{}, Truncated: "false"}
	for _, k := range all {
		if state != 0 && k.State != kms.State(state) {
			continue
		}
		rsp.Total++
		switch {
		case rsp.Total <= marker:
		case len(rsp.Keys) < limit:
			rsp.Keys = append(rsp.Keys, k.ID)
			rsp.KeyDetails = append(rsp.KeyDetails, details(k))
		default:
			rsp.Truncated, rsp.NextMarker = "true", strconv.Itoa(marker+limit)
		}
	}
	return rsp, nil
}

// number reads an optional decimal number from lo to hi.
func number(s string, absent, lo, hi int) (int, error) {
	if s == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("%.16q is not from %d to %d", s, lo, hi)
	}
	return n, nil
}
