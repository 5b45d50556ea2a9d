package keystore

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// Key is what the store tells of a key.
type Key struct {
	ID, Project, Alias, Description string

	State   kms.State
	Default bool
	Created time.Time
	Version string // current version of the material
}

var (
	validProject = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)
	validAlias   = regexp.MustCompile(`^[a-zA-Z0-9:/_-]{1,255}$`)
	looksLikeID  = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
)

func (r *record) key() Key {
	return Key{ID: r.ID, Project: r.Project, Alias: r.Alias, Description: r.Description,
		State: r.State, Default: r.Default, Created: r.Created, Version: versionString(r.Current)}
}

func checkProject(project string) error {
	if !validProject.MatchString(project) {
		return fmt.Errorf("%w: project id %.80q", ErrParameter, project)
	}
	return nil
}

// CreateKey makes a key of 256 bits. alias follows DEW's rule
// (^[a-zA-Z0-9:/_-]{1,255}$); names that end in "/default" belong to default
// keys, and a name must not look like an id.
//
// Errors: ErrAlias, ErrAliasTaken, ErrParameter, ErrQuota.
func (s *Store) CreateKey(project, alias, description string) (Key, error) {
	if err := checkProject(project); err != nil {
		return Key{}, err
	}
	if !validAlias.MatchString(alias) || strings.HasSuffix(alias, "/default") || looksLikeID.MatchString(alias) {
		return Key{}, fmt.Errorf("%w %.300q", ErrAlias, alias)
	}
	if !utf8.ValidString(description) || utf8.RuneCountInString(description) > 255 {
		return Key{}, fmt.Errorf("%w: a description has at most 255 characters", ErrDescription)
	}
	var k Key
	err := s.update(func(tx *bbolt.Tx) (err error) {
		k, err = s.insert(tx, record{Project: project, Alias: alias, Description: description})
		return err
	})
	return k, err
}

// insert completes r with an id and material and stores it.
func (s *Store) insert(tx *bbolt.Tx, r record) (Key, error) {
	if taken, err := s.get(tx, bucketAliases, aliasKey(r.Project, r.Alias), new(string)); taken || err != nil {
		if err != nil {
			return Key{}, err
		}
		return Key{}, fmt.Errorf("%w: %s", ErrAliasTaken, r.Alias)
	}
	count := 0
	prefix := aliasKey(r.Project, "")
	c := tx.Bucket(bucketAliases).Cursor()
	for k, _ := c.Seek(prefix); strings.HasPrefix(string(k), string(prefix)); k, _ = c.Next() {
		count++
	}
	if count >= MaxKeys {
		return Key{}, fmt.Errorf("%w: %d", ErrQuota, MaxKeys)
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return Key{}, err
	}
	r.ID, r.State, r.Created, r.Current = id.String(), kms.StateEnabled, s.now().UTC(), 1
	m, err := s.newMaterial(&r, 1)
	if err != nil {
		return Key{}, err
	}
	r.Materials = []material{m}
	if err := s.put(tx, bucketKeys, []byte(r.ID), &r); err != nil {
		return Key{}, err
	}
	return r.key(), s.put(tx, bucketAliases, aliasKey(r.Project, r.Alias), r.ID)
}

func aliasKey(project, alias string) []byte { return []byte(project + "\x00" + alias) }

// newMaterial makes and seals a version of r's material.
func (s *Store) newMaterial(r *record, version uint32) (material, error) {
	buf, err := secmem.Lock(keySize)
	if err != nil {
		return material{}, err
	}
	defer buf.Destroy()
	copyRandom(buf.Bytes())
	nonce := random(nonceSize)
	sealed, err := sealX(nonce, s.kek(), nonce, buf.Bytes(), materialAAD(r, version))
	return material{Version: version, Created: s.now().UTC(), Sealed: sealed}, err
}

// materialAAD binds material to its key and version.
func materialAAD(r *record, version uint32) []byte {
	return fmt.Appendf(nil, "sealdisk/kms/material/v1\x00%s\x00%s\x00%d", r.Project, r.ID, version)
}

// openMaterial writes version's 32 bytes to dst.
//
// Errors: kms.ErrBinding where the key never had that version, ErrCorrupt.
func (s *Store) openMaterial(r *record, version uint32, dst []byte) error {
	i := slices.IndexFunc(r.Materials, func(m material) bool { return m.Version == version })
	if i < 0 {
		return fmt.Errorf("%w: key %s has no version %d", kms.ErrBinding, r.ID, version)
	}
	m := r.Materials[i]
	if len(m.Sealed) != nonceSize+keySize+tagSize {
		return fmt.Errorf("%w: material of key %s", ErrCorrupt, r.ID)
	}
	if _, err := openX(dst[:0:keySize], s.kek(), m.Sealed[:nonceSize], m.Sealed[nonceSize:], materialAAD(r, version)); err != nil {
		return fmt.Errorf("%w: material of key %s %v", ErrCorrupt, r.ID, err)
	}
	return nil
}

// find resolves an id or alias in project.
//
// Errors: kms.ErrNotFound, ErrKeyID for what can be neither, ErrCorrupt.
func (s *Store) find(tx *bbolt.Tx, project, ref string) (*record, error) {
	if err := checkProject(project); err != nil {
		return nil, err
	}
	id := ref
	if !looksLikeID.MatchString(ref) {
		if !validAlias.MatchString(ref) {
			return nil, fmt.Errorf("%w %.80q", ErrKeyID, ref)
		}
		if found, err := s.get(tx, bucketAliases, aliasKey(project, ref), &id); err != nil || !found {
			return nil, notFound(err, project, ref)
		}
	}
	var r record
	found, err := s.get(tx, bucketKeys, []byte(strings.ToLower(id)), &r)
	if err != nil || !found || r.Project != project {
		return nil, notFound(err, project, ref)
	}
	return &r, nil
}

func notFound(err error, project, ref string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s in project %s", kms.ErrNotFound, ref, project)
}

// Key resolves an id or alias in project.
//
// Errors: kms.ErrNotFound, ErrKeyID, ErrParameter.
func (s *Store) Key(project, ref string) (Key, error) {
	var k Key
	err := s.view(func(tx *bbolt.Tx) error {
		r, err := s.find(tx, project, ref)
		if err == nil {
			k = r.key()
		}
		return err
	})
	return k, err
}

// Keys lists project's keys, the oldest first.
func (s *Store) Keys(project string) ([]Key, error) {
	if err := checkProject(project); err != nil {
		return nil, err
	}
	keys := []Key{}
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketKeys).ForEach(func(id, v []byte) error {
			var r record
			if err := s.decode(bucketKeys, id, v, &r); err != nil {
				return err
			}
			if r.Project == project {
				keys = append(keys, r.key())
			}
			return nil
		})
	})
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return keys, err
}

// Enable and Disable change a key's state as Allowed permits.
//
// Errors: kms.ErrNotFound, ErrDefaultKey, ErrNotDisabled, ErrNotEnabled.
func (s *Store) Enable(project, ref string) (Key, error) {
	return s.setState(project, ref, OpEnable, kms.StateEnabled)
}

// Disable is Enable's opposite.
func (s *Store) Disable(project, ref string) (Key, error) {
	return s.setState(project, ref, OpDisable, kms.StateDisabled)
}

func (s *Store) setState(project, ref string, op Op, to kms.State) (Key, error) {
	var k Key
	err := s.update(func(tx *bbolt.Tx) error {
		r, err := s.find(tx, project, ref)
		if err != nil {
			return err
		}
		if err := Allowed(op, r.State, r.Default); err != nil {
			return fmt.Errorf("key %s: %w", r.ID, err)
		}
		r.State = to
		k = r.key()
		return s.put(tx, bucketKeys, []byte(r.ID), r)
	})
	return k, err
}

// Agency is a project's grant to EVS.
type Agency struct {
	GrantedAt time.Time
	GrantedBy uint32 // uid
}

// Agency returns project's agency; granted is false if there is none.
func (s *Store) Agency(project string) (a Agency, granted bool, err error) {
	if err := checkProject(project); err != nil {
		return Agency{}, false, err
	}
	err = s.view(func(tx *bbolt.Tx) (err error) {
		var r agencyRecord
		granted, err = s.get(tx, bucketAgencies, []byte(project), &r)
		a = Agency(r)
		return err
	})
	return a, granted, err
}

// Grant gives EVS the use of project's keys and makes the default key
// api.DefaultKeyAlias if there is none. Granting again changes nothing.
func (s *Store) Grant(project string, uid uint32) (Agency, error) {
	if err := checkProject(project); err != nil {
		return Agency{}, err
	}
	var r agencyRecord
	err := s.update(func(tx *bbolt.Tx) error {
		granted, err := s.get(tx, bucketAgencies, []byte(project), &r)
		if err != nil {
			return err
		}
		if !granted {
			r = agencyRecord{GrantedAt: s.now().UTC(), GrantedBy: uid}
			if err := s.put(tx, bucketAgencies, []byte(project), r); err != nil {
				return err
			}
		}
		made, err := s.get(tx, bucketAliases, aliasKey(project, api.DefaultKeyAlias), new(json.RawMessage))
		if err != nil || made {
			return err
		}
		_, err = s.insert(tx, record{Project: project, Alias: api.DefaultKeyAlias, Default: true,
			Description: "made for EVS when its agency was granted"})
		return err
	})
	return Agency(r), err
}

// Revoke takes the agency back; its keys stay. revoked is false if there was none.
func (s *Store) Revoke(project string) (revoked bool, err error) {
	if err := checkProject(project); err != nil {
		return false, err
	}
	err = s.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketAgencies)
		revoked = b.Get([]byte(project)) != nil
		return b.Delete([]byte(project))
	})
	return revoked, err
}
