package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Catalog stores the records of all disks: a directory today, a store with leases for a
// fleet later.
//
// Calls for different disks may be concurrent, the caller orders those for one disk. A
// Catalog keeps no reference to a record.
type Catalog interface {
	// Load returns all records, and for each entry that can't be used its id
	// and why.
	Load() (records []*Record, broken map[string]error, err error)
	// Put stores r in place of an earlier record of the same id. It is durable
	// on return; after an error or a crash either the earlier record or r is there, whole.
	Put(r *Record) error
	// Remove removes the record of a disk. It is durable on return. Removing what is not there
	// is no error.
	Remove(id string) error
}

// DirCatalog is a Catalog of one file a disk in a directory:
// <dir>/<uuid>.json, mode 0600.
type DirCatalog struct {
	dir string
	// Tests look at the order, let syncs fail, or kill the process there. step is called before each change of
	// the file system, with what comes; sync syncs a file or a directory.
	step func(string)
	sync func(*os.File) error
}

const recordSuffix = ".json"

// OpenDirCatalog returns the catalog in dir, which it makes if need be. What
// interrupted changes left behind is removed.
func OpenDirCatalog(dir string) (*DirCatalog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, ".*.tmp"))
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			return nil, err
		}
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	return &DirCatalog{dir: dir, step: func(string) {}, sync: (*os.File).Sync}, nil
}

func (c *DirCatalog) path(id string) string { return filepath.Join(c.dir, id+recordSuffix) }

// Load implements Catalog.
func (c *DirCatalog) Load() ([]*Record, map[string]error, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read the catalog: %w", err)
	}
	var records []*Record
	broken := map[string]error{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		if r, err := c.read(id); err != nil {
			broken[id] = err
		} else {
			records = append(records, r)
		}
	}
	return records, broken, nil
}

func (c *DirCatalog) read(id string) (*Record, error) {
	b, err := os.ReadFile(c.path(id))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	r, err := parseRecord(b)
	if err == nil && r.ID != id {
		err = fmt.Errorf("%w: it is of disk %s", ErrRecord, r.ID)
	}
	return r, err
}

// Put implements Catalog: the new contents are durable under another name
// before they replace the old ones.
func (c *DirCatalog) Put(r *Record) error {
	b, err := r.encode()
	if err != nil {
		return err
	}
	tmp := filepath.Join(c.dir, "."+r.ID+".tmp")
	if err := c.replace(tmp, c.path(r.ID), b); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("store the catalog entry of disk %s: %w", r.ID, err)
	}
	return nil
}

func (c *DirCatalog) replace(tmp, path string, b []byte) error {
	c.step("catalog: write")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = c.sync(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	c.step("catalog: rename")
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return c.syncDir()
}

// Remove implements Catalog.
func (c *DirCatalog) Remove(id string) error {
	c.step("catalog: remove")
	err := os.Remove(c.path(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the catalog entry of disk %s: %w", id, err)
	}
	return c.syncDir()
}

func (c *DirCatalog) syncDir() error {
	d, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	return errors.Join(c.sync(d), d.Close())
}

// syncDir makes what was created, renamed and removed in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
