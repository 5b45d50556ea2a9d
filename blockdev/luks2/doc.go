// Package luks2 reads and writes the LUKS2 header of a sealdisk disk: two
// crash-safe copies, no keyslots, a token that says which KMS key wraps the
// data key (DK), and a MAC that tells whether the header was changed without the DK.
package luks2
