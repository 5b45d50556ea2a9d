package xts

const (
	blockSize = 16
	// maxUnit is the longest data unit in bytes: 2^20 blocks (SP 800-38E).
	maxUnit = blockSize << 20
)

// EncryptUnit encrypts one data unit of IEEE 1619 (section 5.3), 16 bytes to
// 2^20 blocks long, from src to dst under a 16-byte tweak (the number of the
// data unit, little-endian). A length that is no multiple of 16 bytes is handled by
// ciphertext stealing. dst may be the same memory as src; otherwise they must not
// overlap. It panics on a length out of these bounds.
func (c *Cipher) EncryptUnit(dst, src []byte, tweakBytes [16]byte) {
	c.unit(dst, src, &tweakBytes, encrypt)
}

// DecryptUnit is the inverse of EncryptUnit (IEEE 1619 section 5.4).
func (c *Cipher) DecryptUnit(dst, src []byte, tweakBytes [16]byte) {
	c.unit(dst, src, &tweakBytes, decrypt)
}

func (c *Cipher) unit(dst, src []byte, tweakBytes *[16]byte, dir direction) {
	if len(src) < blockSize || len(src) > maxUnit {
		panic("xts: a data unit has 16 bytes to 2^20 blocks")
	}
	checkBuffers(dst, src)

	var ts [tweakBatch]tweak
	ts[0] = loadTweak(tweakBytes)
	c.s.encryptTweaks(&ts, 1)

	rest := len(src) % blockSize
	if rest == 0 {
		c.s.blocks(dst[:len(src)], src, ts[:1], len(src), 0, dir)
		return
	}

	// The last whole block and the rest are one piece: what of the block's output
	// does not fit into the rest is stolen to fill the last input.
	whole := len(src) - rest - blockSize
	c.s.blocks(dst[:whole], src[:whole], ts[:1], whole, 0, dir)
	first, second := ts[:1], ts[1:2]
	ts[1] = ts[0].mulX()
	if dir == decrypt {
		first, second = second, first
	}
	var a, b [blockSize]byte
	copy(a[:], src[whole:])
	c.s.blocks(a[:], a[:], first, blockSize, 0, dir)
	b = a
	copy(b[:rest], src[whole+blockSize:])
	c.s.blocks(b[:], b[:], second, blockSize, 0, dir)
	copy(dst[whole:], b[:])
	copy(dst[whole+blockSize:len(src)], a[:rest])
}
