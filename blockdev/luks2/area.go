package luks2

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// The JSON area as it is written. 64-bit numbers are decimal strings (LUKS2
// on-disk format, section 3.1).
type (
	areaJSON struct {
		Keyslots json.RawMessage        `json:"keyslots"`
		Tokens   map[string]tokenJSON   `json:"tokens"`
		Segments map[string]segmentJSON `json:"segments"`
		Digests  map[string]digestJSON  `json:"digests"`
		Config   configJSON             `json:"config"`
	}
	tokenJSON struct {
		Type       string   `json:"type"`
		Keyslots   []string `json:"keyslots"`
		Provider   string   `json:"provider"`
		KeyID      string   `json:"key_id"`
		KeyVersion string   `json:"key_version"`
		WrappedDK  []byte   `json:"wrapped_dk"`
		AADScheme  string   `json:"aad_scheme"`
		DiskID     string   `json:"disk_id"`
		Project    string   `json:"project"`
		Generation uint64   `json:"generation,string"`
		MAC        []byte   `json:"mac"`
	}
	segmentJSON struct {
		Type       string `json:"type"`
		Offset     int64  `json:"offset,string"`
		Size       string `json:"size"`
		IVTweak    string `json:"iv_tweak"`
		Encryption string `json:"encryption"`
		SectorSize int    `json:"sector_size"`
	}
	digestJSON struct {
		Type       string   `json:"type"`
		Keyslots   []string `json:"keyslots"`
		Segments   []string `json:"segments"`
		Hash       string   `json:"hash"`
		Iterations int      `json:"iterations"`
		Salt       []byte   `json:"salt"`
		Digest     []byte   `json:"digest"`
	}
	configJSON struct {
		JSONSize     int64             `json:"json_size,string"`
		KeyslotsSize int64             `json:"keyslots_size,string"`
		Flags        []string          `json:"flags,omitempty"`
		Requirements *requirementsJSON `json:"requirements,omitempty"`
	}
	requirementsJSON struct {
		Mandatory []string `json:"mandatory"`
	}
)

const sizeDynamic = "dynamic"

// encodeArea makes the JSON area of h: text, then zeros, at least one.
func encodeArea(h *Header) ([]byte, error) {
	t := &h.Token
	a := areaJSON{
		Keyslots: h.Kept.Keyslots,
		Tokens: map[string]tokenJSON{"0": {
			Type: TokenType, Keyslots: list(h.Kept.TokenKeyslots),
			Provider: t.Provider, KeyID: t.KeyID, KeyVersion: t.KeyVersion, WrappedDK: t.WrappedDK,
			AADScheme: t.AADScheme, DiskID: t.DiskID, Project: t.Project, Generation: t.Generation, MAC: t.MAC,
		}},
		Segments: map[string]segmentJSON{"0": {
			Type: "crypt", Offset: h.DataOffset, Size: sizeDynamic, IVTweak: "0",
			Encryption: Cipher, SectorSize: h.SectorSize,
		}},
		Digests: map[string]digestJSON{"0": {
			Type: "pbkdf2", Keyslots: list(h.Kept.DigestKeyslots), Segments: []string{"0"},
			Hash: h.Digest.Hash, Iterations: h.Digest.Iterations, Salt: h.Digest.Salt, Digest: h.Digest.Value,
		}},
		Config: configJSON{JSONSize: jsonSize, KeyslotsSize: keyslotsSize, Flags: h.Kept.Flags},
	}
	if len(a.Keyslots) == 0 {
		a.Keyslots = json.RawMessage("{}")
	}
	if h.DataSize != 0 {
		s := a.Segments["0"]
		s.Size = strconv.FormatInt(h.DataSize, 10)
		a.Segments["0"] = s
	}
	if len(h.Requirements) != 0 {
		a.Config.Requirements = &requirementsJSON{h.Requirements}
	}
	text, err := marshalPlain(a)
	if err != nil {
		return nil, err
	}
	if len(text) >= jsonSize {
		return nil, fmt.Errorf("metadata of %d bytes, room for %d", len(text), jsonSize-1)
	}
	area := make([]byte, jsonSize)
	copy(area, text)
	return area, nil
}

// list makes an empty list an empty array, which cryptsetup demands, not null.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// decodeArea reads the JSON area into h. An error that is ErrUnsupported comes from a
// well-formed area, every other one from a malformed one.
func decodeArea(area []byte, h *Header) error {
	n := bytes.IndexByte(area, 0)
	if n < 0 || !zero(area[n:]) {
		return errors.New("JSON area: text not ended by zeros")
	}
	m, err := parseStrict(area[:n])
	if err != nil {
		return fmt.Errorf("JSON area: %w", err)
	}
	root := picker{&err, "", m}
	keyslots := root.object("keyslots")
	decodeToken(one(root, "tokens"), h)
	decodeSegment(one(root, "segments"), h)
	decodeDigest(one(root, "digests"), h)
	decodeConfig(root.object("config"), h)
	root.done()
	if err != nil {
		return err
	}
	if len(keyslots.m) != 0 {
		if h.Kept.Keyslots, err = marshalPlain(keyslots.m); err != nil {
			return fmt.Errorf("JSON area: keyslots: %w", err)
		}
	}
	return nil
}

// one takes an object that must hold exactly the member "0", itself an object.
func one(p picker, name string) picker {
	set := p.object(name)
	member := set.object("0")
	if len(set.m) != 0 {
		p.fail("%d more %s than one", len(set.m), name)
	}
	return member
}

func decodeToken(p picker, h *Header) {
	p.want("type", TokenType)
	t := &h.Token
	h.Kept.TokenKeyslots = p.texts("keyslots")
	t.Provider = p.text("provider")
	t.KeyID = p.text("key_id")
	t.KeyVersion = p.text("key_version")
	t.WrappedDK = p.bytes("wrapped_dk")
	t.AADScheme = p.text("aad_scheme")
	t.DiskID = p.text("disk_id")
	t.Project = p.text("project")
	t.Generation = p.decimal("generation")
	t.MAC = p.bytes("mac")
	p.done()
}

func decodeSegment(p picker, h *Header) {
	p.want("type", "crypt")
	p.want("encryption", Cipher)
	p.want("iv_tweak", "0")
	h.DataOffset = p.size("offset")
	if p.m["size"] == sizeDynamic {
		p.take("size")
	} else if h.DataSize = p.size("size"); h.DataSize == 0 {
		p.fail("%ssize is 0", p.path)
	}
	h.SectorSize = p.number("sector_size")
	p.done()
}

func decodeDigest(p picker, h *Header) {
	p.want("type", "pbkdf2")
	h.Kept.DigestKeyslots = p.texts("keyslots")
	if s := p.texts("segments"); len(s) != 1 || s[0] != "0" {
		p.fail("%ssegments is not [\"0\"]", p.path)
	}
	h.Digest.Hash = p.text("hash")
	h.Digest.Iterations = p.number("iterations")
	h.Digest.Salt = p.bytes("salt")
	h.Digest.Value = p.bytes("digest")
	p.done()
}

func decodeConfig(p picker, h *Header) {
	p.want("json_size", strconv.Itoa(jsonSize))
	p.want("keyslots_size", strconv.Itoa(keyslotsSize))
	if p.has("flags") {
		h.Kept.Flags = p.texts("flags")
	}
	if p.has("requirements") {
		r := p.object("requirements")
		if r.has("mandatory") {
			h.Requirements = r.texts("mandatory")
		}
		r.done()
	}
	p.done()
}

// bytes takes a string in base64 with padding, in the one form that encodes these bytes.
func (p picker) bytes(name string) []byte {
	s := p.text(name)
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || base64.StdEncoding.EncodedLen(len(b)) != len(s) {
		p.fail("%s%s is not base64", p.path, name)
	}
	return b
}

// size takes a decimal string that fits an int64.
func (p picker) size(name string) int64 {
	n := p.decimal(name)
	if n > 1<<62 {
		p.fail("%s%s is too large", p.path, name)
		return 0
	}
	return int64(n)
}
