package api

// This file holds the requests and replies of DEW's key management API, with
// the field names, paths and codes of Huawei Cloud's public "Data Encryption
// Workshop API Reference" (and of its Go SDK, services/kms/v2/model). Numbers
// travel as strings there, and so here. Fields that DEW does not have are
// marked.

const (
	// HeaderPrincipal names whom a request acts for, where the peer may act
	// for more than itself. The one value is PrincipalEVS.
	HeaderPrincipal = "X-Sealdisk-Principal"
	// PrincipalEVS is the disk service: it may use a project's keys while the
	// project grants it an agency, and nothing else.
	PrincipalEVS = "evs"
	// AADReserved begins every additional authenticated data that only
	// PrincipalEVS may wrap and unwrap with.
	AADReserved = "sealdisk:"
	// MaxAAD is the longest additional authenticated data, in bytes.
	MaxAAD = 128
	// DefaultKeyAlias is the default key that granting the agency makes.
	DefaultKeyAlias = "evs/default"
)

// Codes of the KMS API. KMS.xxxx are DEW's (API Reference, appendix "Error
// Code"); SEALDISK.xxxx say what DEW has no code for.
const (
	CodeKMSInternal     = "KMS.0101"
	CodeKMSStorage      = "KMS.0102"
	CodeKMSURL          = "KMS.0201"
	CodeKMSJSON         = "KMS.0202"
	CodeKMSTooLong      = "KMS.0203"
	CodeKMSMissing      = "KMS.0204"
	CodeKMSKeyID        = "KMS.0205"
	CodeKMSNotFound     = "KMS.0207"
	CodeKMSDisabled     = "KMS.0209"
	CodeKMSPending      = "KMS.0210"
	CodeKMSDefaultKey   = "KMS.0211"
	CodeKMSDeniedKey    = "KMS.0306" // no permission to access the key
	CodeKMSDeniedAPI    = "KMS.0307" // no permission to access the API
	CodeKMSParameter    = "KMS.0308"
	CodeKMSAlias        = "KMS.1101"
	CodeKMSDescription  = "KMS.1103"
	CodeKMSAliasTaken   = "KMS.1104"
	CodeKMSQuota        = "KMS.1105"
	CodeKMSNotDisabled  = "KMS.1201"
	CodeKMSNotEnabled   = "KMS.1301"
	CodeKMSLimit        = "KMS.1601"
	CodeKMSMarker       = "KMS.1602"
	CodeKMSDKLength     = "KMS.1901" // create-datakey
	CodeKMSDKLengthWP   = "KMS.2001" // create-datakey-without-plaintext
	CodeKMSCipherText   = "KMS.2201"
	CodeKMSCipherLength = "KMS.2202"
	CodeKMSVerification = "KMS.2203" // the wrapped key does not authenticate
	CodeKMSNoAgency     = "SEALDISK.0001"
	CodeKMSFrozen       = "SEALDISK.0002"
	CodeKMSUnusable     = "SEALDISK.0003" // pending activation or import
)

// KMSError is the body of every failed KMS request.
type KMSError struct {
	Error KMSErrorDetail `json:"error"`
}

// KMSErrorDetail is a code and its words.
type KMSErrorDetail struct {
	Code    string `json:"error_code"`
	Message string `json:"error_msg"`
}

// CreateKeyRequest asks for a new key. Only AES_256 keys that encrypt and
// decrypt and are made by the KMS can be had.
type CreateKeyRequest struct {
	KeyAlias       string `json:"key_alias"`
	KeySpec        string `json:"key_spec,omitempty"`
	KeyUsage       string `json:"key_usage,omitempty"`
	KeyDescription string `json:"key_description,omitempty"`
	Origin         string `json:"origin,omitempty"`
}

// CreateKeyResponse names the new key.
type CreateKeyResponse struct {
	KeyInfo NewKey `json:"key_info"`
}

// NewKey is the part of a key that create-key answers.
type NewKey struct {
	KeyID    string `json:"key_id"`
	DomainID string `json:"domain_id"`
}

// KeyRequest is the body of describe-key, enable-key and disable-key. KeyID
// may be an alias too (an extension).
type KeyRequest struct {
	KeyID string `json:"key_id"`
}

// DescribeKeyResponse is the reply of describe-key.
type DescribeKeyResponse struct {
	KeyInfo KeyDetails `json:"key_info"`
}

// KeyDetails is a key as describe-key and list-keys show it. Dates are
// milliseconds since 1970; KeyState is a kms.State in decimal.
type KeyDetails struct {
	KeyID                 string `json:"key_id"`
	DomainID              string `json:"domain_id"`
	KeyAlias              string `json:"key_alias"`
	Realm                 string `json:"realm"`
	KeySpec               string `json:"key_spec"`
	KeyUsage              string `json:"key_usage"`
	KeyDescription        string `json:"key_description"`
	CreationDate          string `json:"creation_date"`
	ScheduledDeletionDate string `json:"scheduled_deletion_date"`
	KeyState              string `json:"key_state"`
	DefaultKeyFlag        string `json:"default_key_flag"` // "1": the default key
	KeyType               string `json:"key_type"`
	ExpirationTime        string `json:"expiration_time"`
	Origin                string `json:"origin"`
	KeyRotationEnabled    string `json:"key_rotation_enabled"`
	SysEnterpriseProject  string `json:"sys_enterprise_project_id"`
	KeyVersion            string `json:"key_version,omitempty"` // not in DEW: the current version of the material
}

// KeyStatusResponse is the reply of enable-key and disable-key.
type KeyStatusResponse struct {
	KeyInfo KeyStatus `json:"key_info"`
}

// KeyStatus is a key's state.
type KeyStatus struct {
	KeyID    string `json:"key_id"`
	KeyState string `json:"key_state"`
}

// ListKeysRequest asks for one page of a project's keys. Marker is how many
// keys to pass over, as the previous page's NextMarker told.
type ListKeysRequest struct {
	Limit    string `json:"limit,omitempty"`
	Marker   string `json:"marker,omitempty"`
	KeyState string `json:"key_state,omitempty"`
}

// ListKeysResponse is one page of keys, the oldest first.
type ListKeysResponse struct {
	Keys       []string     `json:"keys"`
	KeyDetails []KeyDetails `json:"key_details"`
	NextMarker string       `json:"next_marker"`
	Truncated  string       `json:"truncated"` // "true" or "false"
	Total      int          `json:"total"`
}

// CreateDatakeyRequest is the body of create-datakey and
// create-datakey-without-plaintext. DatakeyLength is in bits; it wins over
// KeySpec, and without either a key has 256 bits.
type CreateDatakeyRequest struct {
	KeyID         string `json:"key_id"`
	KeySpec       string `json:"key_spec,omitempty"`
	DatakeyLength string `json:"datakey_length,omitempty"`
	AAD           string `json:"additional_authenticated_data,omitempty"`
}

// CreateDatakeyResponse is the reply of create-datakey-without-plaintext;
// create-datakey adds plain_text. CipherText is hexadecimal.
type CreateDatakeyResponse struct {
	KeyID      string `json:"key_id"`
	CipherText string `json:"cipher_text"`
	KeyVersion string `json:"key_version,omitempty"` // not in DEW
}

// DecryptDatakeyRequest is the body of decrypt-datakey. CipherLength is the
// plaintext's length in bytes.
type DecryptDatakeyRequest struct {
	KeyID        string `json:"key_id"`
	CipherText   string `json:"cipher_text"`
	CipherLength string `json:"datakey_cipher_length"`
	AAD          string `json:"additional_authenticated_data,omitempty"`
}

// Agency is the right of EVS to use a project's keys, as the routes
// /sealdisk/v1/{project}/agency show it. They are not in DEW.
type Agency struct {
	Project    string `json:"project"`
	Granted    bool   `json:"granted"`
	GrantedAt  string `json:"granted_at,omitempty"` // RFC 3339
	GrantedBy  string `json:"granted_by,omitempty"` // "uid 0"
	DefaultKey string `json:"default_key,omitempty"`
}

// KMSStatus is the reply of GET /sealdisk/v1/status on the KMS's socket.
type KMSStatus struct {
	Store        string `json:"store"` // path of the store
	StoreID      string `json:"store_id"`
	Format       int    `json:"format"`
	RootKey      string `json:"root_key"` // file, passphrase or credential
	MemoryLocked bool   `json:"memory_locked"`
	Keys         int    `json:"keys"`
	Agencies     int    `json:"agencies"`
	PID          int    `json:"pid"`
}

// BackupRequest is the body of POST /sealdisk/v1/backup: how the client derived
// a 32-byte key from the backup's passphrase, which stays with the client. The
// key itself is one more field, "key" in hexadecimal; it has no place in this
// type so that it is never held in a string. The reply is the backup file.
type BackupRequest struct {
	Salt    string `json:"salt"` // hexadecimal, 16 bytes
	Time    uint32 `json:"time"`
	Memory  uint32 `json:"memory"` // KiB
	Threads uint8  `json:"threads"`
}
