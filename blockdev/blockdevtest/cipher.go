package blockdevtest

import "encoding/binary"

// Cipher is a stand-in for AES-XTS, fast and worthless: it XORs each 8 bytes
// with a hash of its key, their position and the sector size, so that data that
// moved or was taken for another sector size reads as noise. Unlike AES-XTS its
// inverse is itself, so that a test can find the plaintext whose ciphertext is
// all zero.
type Cipher uint64

// Encrypt implements blockdev.SectorCipher.
func (c Cipher) Encrypt(dst, src []byte, sectorSize int, pos uint64) {
	if len(src)%granule != 0 || pos%granule != 0 || len(dst) < len(src) {
		panic("blockdevtest: Cipher got parts of granules")
	}
	for i := 0; i < len(src); i += 8 {
		x := uint64(c) + (pos+uint64(i))*0x9e3779b97f4a7c15 + uint64(sectorSize)
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
		binary.LittleEndian.PutUint64(dst[i:], binary.LittleEndian.Uint64(src[i:])^x)
	}
}

// Decrypt implements blockdev.SectorCipher.
func (c Cipher) Decrypt(dst, src []byte, sectorSize int, pos uint64) {
	c.Encrypt(dst, src, sectorSize, pos)
}
