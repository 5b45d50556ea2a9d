package luks2

import "errors"

const (
	// DataOffset is where the encrypted data begins, in bytes.
	DataOffset = 16 << 20
	// Cipher is the only segment encryption that is written or accepted.
	Cipher = "aes-xts-plain64"
	// TokenType marks sealdisk's token in the header.
	TokenType = "sealdisk-kms"
	// RequirementHoles is the mandatory requirement of a header whose data may
	// hold holes, which dm-crypt would read as garbage.
	RequirementHoles = "sealdisk-holes"
	// AADScheme names how the additional authenticated data of the wrapped DK
	// is made of project and disk: see AAD.
	AADScheme = "sealdisk:v1"
)

var (
	// ErrNotLUKS2: no copy of the header carries the LUKS2 magic.
	ErrNotLUKS2 = errors.New("no LUKS2 header")
	// ErrDamaged: no copy of the header is intact.
	ErrDamaged = errors.New("both copies of the header are damaged")
	// ErrUnsupported: a well-formed header that asks for what sealdisk does
	// not write: another cipher, sector size, segment layout or flag.
	ErrUnsupported = errors.New("unsupported LUKS2 header")
	// ErrWrongKey: the digest says that the DK is not this disk's.
	ErrWrongKey = errors.New("the data key is not this disk's")
	// ErrForged: the digest accepts the DK but the token's MAC does not cover
	// this header: somebody changed it without the key.
	ErrForged = errors.New("the header was changed without the data key")
)

// Header is the meaning of a LUKS2 header as sealdisk writes it. It holds no
// plaintext key.
type Header struct {
	UUID       string // of the container, the disk's id
	Label      string
	SeqID      uint64 // sequence number of the copy it was read from
	SectorSize int    // bytes: 512 or 4096
	DataOffset int64  // bytes
	DataSize   int64  // bytes; 0 is "dynamic": to the end of the file
	// Requirements are the mandatory ones, nil or {RequirementHoles}.
	Requirements []string
	Token        Token
	Digest       Digest
}

// Token is what attaching needs to ask the KMS for the DK.
type Token struct {
	Provider   string // kms.Provider's Name
	KeyID      string // resolved, never an alias
	KeyVersion string
	WrappedDK  []byte
	AADScheme  string
	DiskID     string
	Project    string
	Generation uint64 // raised by each change of the token; the catalog keeps the lowest accepted
	MAC        []byte // HMAC-SHA256 under HKDF(DK, "sealdisk/header/v1"), 32 bytes
}

// Digest is the LUKS2 pbkdf2 digest of the DK.
type Digest struct {
	Hash       string // "sha256"
	Iterations int
	Salt       []byte // 32 bytes
	Value      []byte
}
