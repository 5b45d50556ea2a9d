package luks2

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Limits on what a token and a digest may hold.
const (
	maxProvider   = 64
	maxProject    = 64 // so that AAD stays within 128 bytes
	maxDiskID     = 48
	maxKeyID      = 512
	maxKeyVersion = 128
	maxWrapped    = 2048
	maxKeyslots   = 32 // LUKS2_KEYSLOTS_MAX of cryptsetup
	saltSize      = 32 // the only size cryptsetup accepts
	// minIterations is cryptsetup's least for PBKDF2. More would buy nothing:
	// iterations slow the search of passphrases, and a DK is 512 random bits.
	minIterations = 1000
	maxIterations = 1 << 20 // bounds the time that a forged header can cost
)

// knownFlags are the persistent activation flags of cryptsetup 2.6. They tune dm-crypt
// and mean nothing to sealdisk.
var knownFlags = []string{
	"allow-discards", "same-cpu-crypt", "submit-from-crypt-cpus",
	"no-journal", "no-read-workqueue", "no-write-workqueue",
}

// check says what in h Read would refuse. Digest and MAC, which Seal makes, are
// looked at only if sealed.
func (h *Header) check(sealed bool) error {
	if err := checkUUID(h.UUID); err != nil {
		return err
	}
	if err := checkText(h.Label, 47); err != nil {
		return fmt.Errorf("label: %w", err)
	}
	switch {
	case h.SectorSize != 512 && h.SectorSize != 4096:
		return fmt.Errorf("sector size %d, want 512 or 4096", h.SectorSize)
	case h.DataOffset != DataOffset:
		return fmt.Errorf("data at byte %d, want %d", h.DataOffset, DataOffset)
	case h.DataSize < 0 || h.DataSize%4096 != 0 || h.DataSize > 1<<62:
		return fmt.Errorf("data size %d is not a multiple of 4096", h.DataSize)
	case len(h.Requirements) > 1:
		return errors.New("more than one requirement")
	case len(h.Requirements) == 1 && h.Requirements[0] != RequirementHoles:
		return fmt.Errorf("unknown requirement %q", h.Requirements[0])
	}
	if err := h.Token.check(); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if err := h.Kept.check(); err != nil {
		return err
	}
	if !sealed {
		return nil
	}
	if len(h.Token.MAC) != sha256.Size {
		return fmt.Errorf("token: MAC of %d bytes, want %d (not sealed?)", len(h.Token.MAC), sha256.Size)
	}
	return h.Digest.check()
}

func (t *Token) check() error {
	for _, f := range []struct {
		name, value string
		limit       int
		check       func(string) error
	}{
		{"provider", t.Provider, maxProvider, checkName},
		{"project", t.Project, maxProject, checkName},
		{"disk id", t.DiskID, maxDiskID, checkName},
		{"key id", t.KeyID, maxKeyID, checkASCII},
		{"key version", t.KeyVersion, maxKeyVersion, checkASCII},
	} {
		if f.value == "" && f.name != "key version" {
			return fmt.Errorf("no %s", f.name)
		}
		if len(f.value) > f.limit {
			return fmt.Errorf("%s longer than %d bytes", f.name, f.limit)
		}
		if err := f.check(f.value); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if t.AADScheme != AADScheme {
		return fmt.Errorf("scheme %q, want %q (made by a newer version?)", t.AADScheme, AADScheme)
	}
	if len(t.WrappedDK) == 0 || len(t.WrappedDK) > maxWrapped {
		return fmt.Errorf("wrapped key of %d bytes, want 1 to %d", len(t.WrappedDK), maxWrapped)
	}
	return nil
}

func (d *Digest) check() error {
	switch {
	case d.Hash != "sha256":
		return fmt.Errorf("digest: hash %q, want sha256", d.Hash)
	case d.Iterations < minIterations || d.Iterations > maxIterations:
		return fmt.Errorf("digest: %d iterations, want %d to %d", d.Iterations, minIterations, maxIterations)
	case len(d.Salt) != saltSize || len(d.Value) != sha256.Size:
		return fmt.Errorf("digest: salt of %d and value of %d bytes, want 32 and 32", len(d.Salt), len(d.Value))
	}
	return nil
}

func (k *Kept) check() error {
	if err := checkText(k.Subsystem, 47); err != nil {
		return fmt.Errorf("subsystem: %w", err)
	}
	slots := map[string]any{}
	if len(k.Keyslots) != 0 {
		var err error
		if slots, err = parseStrict(k.Keyslots); err != nil {
			return fmt.Errorf("keyslots: %w", err)
		}
	}
	for name, v := range slots {
		n, err := strconv.Atoi(name)
		if err != nil || strconv.Itoa(n) != name || n < 0 || n >= maxKeyslots {
			return fmt.Errorf("keyslot %q: not a number below %d", name, maxKeyslots)
		}
		slot, _ := v.(map[string]any)
		_, isText := slot["type"].(string)
		_, isNumber := slot["key_size"].(json.Number)
		if !isText || !isNumber {
			return fmt.Errorf("keyslot %s: no type or no key size", name)
		}
	}
	for _, refs := range [][]string{k.DigestKeyslots, k.TokenKeyslots} {
		for i, ref := range refs {
			if _, ok := slots[ref]; !ok || slices.Contains(refs[:i], ref) {
				return fmt.Errorf("reference to keyslot %q, which is not there or named twice", ref)
			}
		}
	}
	for i, f := range k.Flags {
		if !slices.Contains(knownFlags, f) || slices.Contains(k.Flags[:i], f) {
			return fmt.Errorf("flag %q is unknown or named twice", f)
		}
	}
	return nil
}

// checkName allows what can't be confused with AAD's separator.
func checkName(s string) error {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return fmt.Errorf("character %q; letters, digits, '-', '_' and '.' are allowed", c)
		}
	}
	return nil
}

func checkUUID(s string) error {
	ok := len(s) == 36
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			ok = c == '-'
		} else {
			ok = '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
		}
	}
	if !ok {
		return fmt.Errorf("UUID %q is not 36 characters of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in lower case", s)
	}
	return nil
}
