// Package luks2 reads and writes the LUKS2 header of a sealdisk disk: two
// crash-safe copies, no keyslots, a token that says which KMS key wraps the
// data key (DK), and a MAC that tells whether the header was changed without the DK.
//
// A new disk: fill in a Header, Seal it with the DK, Format. To attach: Read,
// unwrap Token.WrappedDK with Token.AAD, Verify. To change: Read, change, Seal,
// Write. After an unclean end: Repair. Only Seal, Verify and VolumeKeyCheck take the DK.
//
// # What it protects
//
// Verify refuses a header that was changed without the DK (another sector size, data size,
// token, generation, requirement, UUID) and Read refuses every header that sealdisk does not
// write, whatever its checksum says; cryptsetup's own digest proves neither. Not
// protected: an older header of the same disk put back whole (the catalog keeps
// the lowest generation accepted), the label, rescue keyslots, and the data itself.
//
// # Layout
//
// Bytes from the start of the file or device (LUKS2 on-disk format, sections 2 and 3;
// integers big-endian). The sizes are cryptsetup's defaults.
//
//	       0  4096      binary header of the first copy
//	    4096  12288     JSON area of the first copy: text, then zeros, at least one
//	   16384  4096      binary header of the second copy
//	   20480  12288     JSON area of the second copy
//	   32768  16744448  keyslots area: never touched here; luksAddKey uses it after finalize
//	16777216  …         data: aes-xts-plain64, tweak 0 at the first sector
//
// Binary header:
//
//	  0  6     magic: "LUKS\xba\xbe", in the second copy "SKUL\xba\xbe"
//	  6  2     version: 2
//	  8  8     size of a copy: 16384
//	 16  8     sequence number: the copy with the higher one counts
//	 24  48    label, ended by NUL
//	 72  32    checksum algorithm: "sha256"
//	104  64    salt, random, new at each write, different in the two copies
//	168  40    UUID, ended by NUL
//	208  48    subsystem, ended by NUL; empty, kept when somebody set it
//	256  8     offset of this copy: 0 or 16384
//	264  184   zeros
//	448  64    checksum: SHA-256 of the copy with this field zero, then zeros
//	512  3584  zeros
//
// JSON area, every field of it (64-bit numbers are decimal strings; base64 is
// padded; text is printable ASCII; no key twice; nothing else is accepted):
//
//	keyslots   {}; rescue keyslots that luksAddKey made are kept as they are
//	tokens.0   type "sealdisk-kms", keyslots [], provider, key_id, key_version,
//	           wrapped_dk (base64), aad_scheme "sealdisk:v1", disk_id, project,
//	           generation (decimal string), mac (base64)
//	segments.0 type "crypt", offset "16777216", size "dynamic" or a decimal string (block
//	           device), iv_tweak "0", encryption "aes-xts-plain64", sector_size 4096 or 512
//	digests.0  type "pbkdf2", keyslots [], segments ["0"], hash "sha256",
//	           iterations 1000, salt, digest (base64, 32 bytes each)
//	config     json_size "12288", keyslots_size "16744448";
//	           requirements {"mandatory": ["sealdisk-holes"]} while data may hold holes;
//	           flags: cryptsetup's activation flags are kept
//
// # What cryptsetup makes of it (2.6.1)
//
// isLuks, luksUUID, luksDump (with --dump-json-metadata) and luksHeaderBackup read it.
// "open --test-passphrase --key-size 512 --volume-key-file F" accepts the DK and refuses
// another key; without keyslots cryptsetup wants the size told. While the requirement stands,
// open, luksAddKey, config, luksUUID --uuid, token and convert refuse with "Unmet LUKS2 requirements",
// luksHeaderRestore with "Forbidden LUKS2 requirements", repair with exit code 1. After
// finalize luksAddKey, config, luksUUID, token and repair work, and open with dm-crypt; the
// keyslot that luksAddKey adds is kept here. A changed label is
// accepted; a changed UUID is not (Verify: ErrForged), nor a removed token or a second one.
// A command of cryptsetup that finds one copy damaged or stale rewrites it, as Repair does.
//
// # Versions
//
// The token's aad_scheme names the version of the scheme: of the token's fields, of AAD and of the
// MAC's encoding together. Version 1 is "sealdisk:v1". Any change of those takes the next number, since
// both ends must agree on every byte; a program answers ErrUnsupported to a version that it does
// not know, and leaves the header alone. A new version of sealdisk reads all earlier
// versions; it writes the newest when it seals a header anew, never by only attaching a disk, so that
// going back to the version before stays possible until then. The LUKS2 version (2), requirement
// and layout of the container are the LUKS2 format's and have no version of ours.
package luks2
