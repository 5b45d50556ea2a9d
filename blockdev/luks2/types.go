package luks2

import (
	"encoding/json"
	"errors"
)

const (
	// DataOffset is where the encrypted data begins, in bytes.
	DataOffset = 16 << 20
	// Cipher is the only segment encryption that is written or accepted.
	Cipher = "aes-xts-plain64"
	// KeySize is the size of a data key (DK) in bytes: AES-256-XTS.
	KeySize = 64
	// TokenType marks sealdisk's token in the header.
	TokenType = "sealdisk-kms"
	// RequirementHoles is the mandatory requirement of a header whose data may
	// hold holes, which dm-crypt would read as garbage.
	RequirementHoles = "sealdisk-holes"
	// AADScheme names how the additional authenticated data of the wrapped DK
	// is made of project and disk: see AAD. Its last part is the version of the
	// scheme, and of the token with it.
	AADScheme = "sealdisk:v1"
)

var (
	// ErrNotLUKS2 is returned when no copy of the header carries the LUKS2 magic.
	ErrNotLUKS2 = errors.New("no LUKS2 header")
	// ErrDamaged is returned when a LUKS2 header is there but no copy of it is intact.
	ErrDamaged = errors.New("both copies of the header are damaged")
	// ErrUnsupported is returned for a well-formed header that asks for what
	// sealdisk does not write: another cipher, sector size, segment layout or flag.
	ErrUnsupported = errors.New("unsupported LUKS2 header")
	// ErrWrongKey is returned when the digest says that the DK is not this disk's.
	ErrWrongKey = errors.New("the data key is not this disk's")
	// ErrForged is returned when the digest accepts the DK but the token's MAC
	// does not cover this header: somebody changed it without the key.
	ErrForged = errors.New("the header was changed without the data key")
	// ErrInvalid is returned by Seal, Write and Format for a Header that Read would refuse.
	ErrInvalid = errors.New("header can't be written")
	// ErrConflict is returned by Write when the header on disk is not the one
	// that h was read from: another program wrote it since.
	ErrConflict = errors.New("the header on disk changed since it was read")
)

// Header is the meaning of a LUKS2 header as sealdisk writes it. It holds no
// plaintext key. Its JSON form is complete (the wrapped DK too) and travels
// between processes; its String, Format and zap forms leave the wrapped DK out.
type Header struct {
	UUID       string // of the container, the disk's id: 36 characters, lower case
	Label      string // at most 47 bytes
	SeqID      uint64 // sequence number of the copy it was read from; Write and Format set it
	SectorSize int    // bytes: 512 or 4096
	DataOffset int64  // bytes: the constant DataOffset
	DataSize   int64  // bytes, a multiple of 4096; 0 is "dynamic": to the end of the file
	// Requirements are the mandatory ones, nil or {RequirementHoles}.
	Requirements []string
	Token        Token
	Digest       Digest
	// Kept is what cryptsetup may have added. The MAC does not cover it.
	Kept Kept
}

// Token is what attaching needs to ask the KMS for the DK.
type Token struct {
	Provider   string // kms.Provider's Name
	KeyID      string // resolved, never an alias
	KeyVersion string
	WrappedDK  []byte // at most 2048 bytes
	AADScheme  string // the constant AADScheme; Seal fills it in when empty
	DiskID     string
	Project    string
	Generation uint64 // raised by each change of the token; the catalog keeps the lowest accepted
	MAC        []byte // see Seal; 32 bytes
}

// Digest is the LUKS2 pbkdf2 digest of the DK.
type Digest struct {
	Hash       string // "sha256"
	Iterations int
	Salt       []byte // 32 bytes
	Value      []byte // 32 bytes
}

// Kept is what cryptsetup may add to a finalized header (rescue passphrases by
// luksAddKey, persistent activation flags). It is preserved in meaning when
// the header is written again, and not interpreted: only cryptsetup uses it.
// The zero value says that there is nothing.
type Kept struct {
	Keyslots       json.RawMessage `json:",omitempty"` // the JSON object "keyslots"; nil is {}
	DigestKeyslots []string        `json:",omitempty"` // keyslots that hold the DK
	TokenKeyslots  []string        `json:",omitempty"`
	Flags          []string        `json:",omitempty"` // config.flags, known names only
	Subsystem      string          `json:",omitempty"` // at most 47 bytes
}
