package xts

import (
	"encoding/binary"
	"math/bits"
)

// The bitsliced AES works on four blocks at a time in eight 64-bit words: word b
// holds bit b of all 64 bytes. Within a word the byte of block k, row r, column c
// has position 16r + 4c + k, so a step from row to row is a rotation by 16 and
// one from column to column a rotation by 4 within each 16-bit lane.
//
// ShiftRows is left out (the "fixslicing" of Adomnicai and Peyrin, Fixslicing
// AES-like Ciphers, CHES 2021): the state after round r is kept as ShiftRows^-r
// of the true one. MixColumns of round r then takes, for the byte i rows below,
// the one i·r columns further: four variants, by r mod 4. Round keys are stored
// with the same permutation. Both 10 and 14 rounds leave ShiftRows^2 to be done
// at the end, which swaps the columns 0, 2 and 1, 3 of the odd rows.
//
// The constant 0x63 of the S-box is added to the round keys instead: MixColumns
// and ShiftRows map a state full of 0x63 to itself.

// slicedKey is one round key of the bitsliced cipher, for round r: the four
// blocks alike, ShiftRows^-r applied, and subConst added if r > 0.
type slicedKey = [8]uint64

type slicedKeys [maxRoundKeys]slicedKey

// subConst is the additive constant of the S-box (FIPS 197 section 5.1.1).
const subConst = 0x63

// oddRows selects rows 1 and 3 in eight bytes of a block (two columns).
const oddRows = 0xff00ff00ff00ff00

// encrypt4 encrypts four blocks in place.
func encrypt4(keys []slicedKey, b *[64]byte) {
	q0, q1, q2, q3, q4, q5, q6, q7 := slice(b)
	q0, q1, q2, q3, q4, q5, q6, q7 = addKey(q0, q1, q2, q3, q4, q5, q6, q7, &keys[0])
	last := len(keys) - 1
	for r := 1; r < last; r++ {
		q0, q1, q2, q3, q4, q5, q6, q7 = subBytes(q0, q1, q2, q3, q4, q5, q6, q7)
		switch r % 4 {
		case 0:
			q0, q1, q2, q3, q4, q5, q6, q7 = mixColumns0(q0, q1, q2, q3, q4, q5, q6, q7)
		case 1:
			q0, q1, q2, q3, q4, q5, q6, q7 = mixColumns1(q0, q1, q2, q3, q4, q5, q6, q7)
		case 2:
			q0, q1, q2, q3, q4, q5, q6, q7 = mixColumns2(q0, q1, q2, q3, q4, q5, q6, q7)
		case 3:
			q0, q1, q2, q3, q4, q5, q6, q7 = mixColumns3(q0, q1, q2, q3, q4, q5, q6, q7)
		}
		q0, q1, q2, q3, q4, q5, q6, q7 = addKey(q0, q1, q2, q3, q4, q5, q6, q7, &keys[r])
	}
	q0, q1, q2, q3, q4, q5, q6, q7 = subBytes(q0, q1, q2, q3, q4, q5, q6, q7)
	q0, q1, q2, q3, q4, q5, q6, q7 = addKey(q0, q1, q2, q3, q4, q5, q6, q7, &keys[last])
	unslice(b, q0, q1, q2, q3, q4, q5, q6, q7)
	swapOddRows(b)
}

// decrypt4 is the inverse of encrypt4.
func decrypt4(keys []slicedKey, b *[64]byte) {
	swapOddRows(b)
	q0, q1, q2, q3, q4, q5, q6, q7 := slice(b)
	last := len(keys) - 1
	q0, q1, q2, q3, q4, q5, q6, q7 = addKey(q0, q1, q2, q3, q4, q5, q6, q7, &keys[last])
	q0, q1, q2, q3, q4, q5, q6, q7 = invSubBytes(q0, q1, q2, q3, q4, q5, q6, q7)
	for r := last - 1; r > 0; r-- {
		q0, q1, q2, q3, q4, q5, q6, q7 = addKey(q0, q1, q2, q3, q4, q5, q6, q7, &keys[r])
		switch r % 4 {
		case 0:
			q0, q1, q2, q3, q4, q5, q6, q7 = premixEven(q0, q1, q2, q3, q4, q5, q6, q7)
			q0, q1, q2, q3, q4, q5, q6, q7 = mixColumns0(q0, q1, q2, q3, q4, q5, q6, q7)
		case 1:
			q0, q1, q2, q3, q4, q5, q6, q7 = premixOdd(q0, q1, q2, q3, q4, q5, q6, q7)
			q0, q1, q2, q3, q4, q5, q6, q7 = mixColumns1(q0, q1, q2, q3, q4, q5, q6, q7)
		case 2:
			q0, q1, q2, q3, q4, q5, q6, q7 = premixEven(q0, q1, q2, q3, q4, q5, q6, q7)
			q0, q1, q2, q3, q4, q5, q6, q7 = mixColumns2(q0, q1, q2, q3, q4, q5, q6, q7)
		case 3:
			q0, q1, q2, q3, q4, q5, q6, q7 = premixOdd(q0, q1, q2, q3, q4, q5, q6, q7)
			q0, q1, q2, q3, q4, q5, q6, q7 = mixColumns3(q0, q1, q2, q3, q4, q5, q6, q7)
		}
		q0, q1, q2, q3, q4, q5, q6, q7 = invSubBytes(q0, q1, q2, q3, q4, q5, q6, q7)
	}
	q0, q1, q2, q3, q4, q5, q6, q7 = addKey(q0, q1, q2, q3, q4, q5, q6, q7, &keys[0])
	unslice(b, q0, q1, q2, q3, q4, q5, q6, q7)
}

// swapOddRows does ShiftRows^2 on four blocks in natural order.
func swapOddRows(b *[64]byte) {
	for i := 0; i < len(b); i += 16 {
		lo, hi := binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(b[i+8:])
		t := (lo ^ hi) & oddRows
		binary.LittleEndian.PutUint64(b[i:], lo^t)
		binary.LittleEndian.PutUint64(b[i+8:], hi^t)
	}
}

func addKey(q0, q1, q2, q3, q4, q5, q6, q7 uint64, k *slicedKey) (_, _, _, _, _, _, _, _ uint64) {
	return q0 ^ k[0], q1 ^ k[1], q2 ^ k[2], q3 ^ k[3], q4 ^ k[4], q5 ^ k[5], q6 ^ k[6], q7 ^ k[7]
}

// slice brings four blocks into the bitsliced order.
//
// Word 2k + h of the input is half h of block k. Read as a permutation of the 9
// bits that address a bit of the 64 bytes: the number of the word is (k1 k0
// c1), the position within it (c0 r1 r0 b2 b1 b0). swap exchanges one bit of
// the former with one of the latter. The three of the word's number all become
// bits of b; going round by the lowest one takes c1, r0, r1, c0 to their places
// on the way.
func slice(b *[64]byte) (_, _, _, _, _, _, _, _ uint64) {
	w0, w1 := binary.LittleEndian.Uint64(b[0:]), binary.LittleEndian.Uint64(b[8:])
	w2, w3 := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	w4, w5 := binary.LittleEndian.Uint64(b[32:]), binary.LittleEndian.Uint64(b[40:])
	w6, w7 := binary.LittleEndian.Uint64(b[48:]), binary.LittleEndian.Uint64(b[56:])

	w0, w1 = sliceHalves(w0, w1)
	w2, w3 = sliceHalves(w2, w3)
	w4, w5 = sliceHalves(w4, w5)
	w6, w7 = sliceHalves(w6, w7)

	w0, w4 = swap(w0, w4, 1, mask1)
	w1, w5 = swap(w1, w5, 1, mask1)
	w2, w6 = swap(w2, w6, 1, mask1)
	w3, w7 = swap(w3, w7, 1, mask1)

	w0, w2 = swap(w0, w2, 0, mask0)
	w1, w3 = swap(w1, w3, 0, mask0)
	w4, w6 = swap(w4, w6, 0, mask0)
	w5, w7 = swap(w5, w7, 0, mask0)

	// Now the number of the word is (b1 b0 b2).
	return w0, w2, w4, w6, w1, w3, w5, w7
}

// unslice is the inverse of slice.
func unslice(b *[64]byte, w0, w2, w4, w6, w1, w3, w5, w7 uint64) {
	w0, w2 = swap(w0, w2, 0, mask0)
	w1, w3 = swap(w1, w3, 0, mask0)
	w4, w6 = swap(w4, w6, 0, mask0)
	w5, w7 = swap(w5, w7, 0, mask0)

	w0, w4 = swap(w0, w4, 1, mask1)
	w1, w5 = swap(w1, w5, 1, mask1)
	w2, w6 = swap(w2, w6, 1, mask1)
	w3, w7 = swap(w3, w7, 1, mask1)

	w0, w1 = unsliceHalves(w0, w1)
	w2, w3 = unsliceHalves(w2, w3)
	w4, w5 = unsliceHalves(w4, w5)
	w6, w7 = unsliceHalves(w6, w7)

	binary.LittleEndian.PutUint64(b[0:], w0)
	binary.LittleEndian.PutUint64(b[8:], w1)
	binary.LittleEndian.PutUint64(b[16:], w2)
	binary.LittleEndian.PutUint64(b[24:], w3)
	binary.LittleEndian.PutUint64(b[32:], w4)
	binary.LittleEndian.PutUint64(b[40:], w5)
	binary.LittleEndian.PutUint64(b[48:], w6)
	binary.LittleEndian.PutUint64(b[56:], w7)
}

// Masks of the positions whose bit n is zero.
const (
	mask0 = 0x5555555555555555
	mask1 = 0x3333333333333333
	mask2 = 0x0f0f0f0f0f0f0f0f
	mask3 = 0x00ff00ff00ff00ff
	mask4 = 0x0000ffff0000ffff
	mask5 = 0x00000000ffffffff
)

// swap exchanges bit n of the position with the bit of the word's number that is
// 0 in a's and 1 in b's; mask selects the positions whose bit n is zero.
func swap(a, b uint64, n int, mask uint64) (uint64, uint64) {
	t := (a>>(1<<n) ^ b) & mask
	return a ^ t<<(1<<n), b ^ t
}

// sliceHalves takes (c1; c0 r1 r0 b2) to (b2; r1 r0 c1 c0).
func sliceHalves(a, b uint64) (uint64, uint64) {
	a, b = swap(a, b, 3, mask3)
	a, b = swap(a, b, 4, mask4)
	a, b = swap(a, b, 5, mask5)
	return swap(a, b, 2, mask2)
}

// unsliceHalves is the inverse of sliceHalves.
func unsliceHalves(a, b uint64) (uint64, uint64) {
	a, b = swap(a, b, 2, mask2)
	a, b = swap(a, b, 5, mask5)
	a, b = swap(a, b, 4, mask4)
	return swap(a, b, 3, mask3)
}

// lanes1, lanes2, lanes3 select the columns of each row that do not wrap around
// when the row moves by one, two or three columns.
const (
	lanes1 = 0x0fff0fff0fff0fff
	lanes2 = 0x00ff00ff00ff00ff
	lanes3 = 0x000f000f000f000f
)

// below1 gives every byte the one a row below and 0 columns further, below1by1
// one column further, and so on; below2 the one two rows below.
func below1(q uint64) uint64 { return bits.RotateLeft64(q, -16) }
func below1by1(q uint64) uint64 {
	return bits.RotateLeft64(q, -20)&lanes1 | bits.RotateLeft64(q, -4)&^lanes1
}
func below1by2(q uint64) uint64 {
	return bits.RotateLeft64(q, -24)&lanes2 | bits.RotateLeft64(q, -8)&^lanes2
}
func below1by3(q uint64) uint64 {
	return bits.RotateLeft64(q, -28)&lanes3 | bits.RotateLeft64(q, -12)&^lanes3
}
func below2(q uint64) uint64 { return bits.RotateLeft64(q, -32) }
func below2by2(q uint64) uint64 {
	return bits.RotateLeft64(q, -40)&lanes2 | bits.RotateLeft64(q, -24)&^lanes2
}
