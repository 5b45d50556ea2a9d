//go:build !purego

#include "textflag.h"

// The tier "aes": the AES extension of ARMv8, eight blocks in flight.
//
// Round keys stay in registers for a whole call (AESE takes no memory operand), so
// this tier does not keep them out of a signal's frame. There is no stack
// frame; all vector registers are cleared before a function returns.
//
// Registers of encryptAES and decryptAES:
//
//	V0…V7     eight blocks
//	V8…V15    their tweaks
//	V16…V19   round keys 0…3 of AES-256
//	V20…V30   the last eleven round keys: from here on AES-128 and AES-256 are alike
//	R0, R1    lanes of the round keys, rounds
//	R2        where the encrypted tweak of this data unit is
//	R3, R4    destination, source
//	R5        batches (of 128 bytes) left of this data unit
//	R6        batches of a whole data unit
//	R7        batches left after this data unit
//	R9, R10   tweak of the next block: low and high half
//	R8, R11   scratch

// KEYS loads the round keys, which are w = 1<<width bytes apart.
#define KEYS(w, width) \
	SUB   $10, R1, R8; \
	ADD   R8<<width, R0, R8; \
	FMOVQ (0*w)(R0), F16; \
	FMOVQ (1*w)(R0), F17; \
	FMOVQ (2*w)(R0), F18; \
	FMOVQ (3*w)(R0), F19; \
	FMOVQ (0*w)(R8), F20; \
	FMOVQ (1*w)(R8), F21; \
	FMOVQ (2*w)(R8), F22; \
	FMOVQ (3*w)(R8), F23; \
	FMOVQ (4*w)(R8), F24; \
	FMOVQ (5*w)(R8), F25; \
	FMOVQ (6*w)(R8), F26; \
	FMOVQ (7*w)(R8), F27; \
	FMOVQ (8*w)(R8), F28; \
	FMOVQ (9*w)(R8), F29; \
	FMOVQ (10*w)(R8), F30

// UNIT takes this data unit's batches off what is left (R5, or fewer) and loads
// its tweak.
#define UNIT \
	CMP  R7, R5; \
	CSEL HI, R7, R5, R5; \
	SUB  R5, R7; \
	LDP  (R2), (R9, R10)

// TWEAK hands out the next tweak and steps to the one after (times x).
#define TWEAK(out) \
	VMOV R9, out.D[0]; \
	VMOV R10, out.D[1]; \
	ASR  $63, R10, R11; \
	AND  $0x87, R11; \
	EXTR $63, R9, R10, R10; \
	EOR  R9<<1, R11, R9

#define TWEAK8 \
	TWEAK(V8); \
	TWEAK(V9); \
	TWEAK(V10); \
	TWEAK(V11); \
	TWEAK(V12); \
	TWEAK(V13); \
	TWEAK(V14); \
	TWEAK(V15)

// ADD8 adds the tweaks.
#define ADD8 \
	VEOR V8.B16, V0.B16, V0.B16; \
	VEOR V9.B16, V1.B16, V1.B16; \
	VEOR V10.B16, V2.B16, V2.B16; \
	VEOR V11.B16, V3.B16, V3.B16; \
	VEOR V12.B16, V4.B16, V4.B16; \
	VEOR V13.B16, V5.B16, V5.B16; \
	VEOR V14.B16, V6.B16, V6.B16; \
	VEOR V15.B16, V7.B16, V7.B16

// Rounds: aes is AESE or AESD (add the round key, then the S-box and ShiftRows),
// mix AESMC or AESIMC.
#define ROUND1(aes, mix, key, b) \
	aes key.B16, b.B16; \
	mix b.B16, b.B16

#define ROUND8(aes, mix, key) \
	ROUND1(aes, mix, key, V0); \
	ROUND1(aes, mix, key, V1); \
	ROUND1(aes, mix, key, V2); \
	ROUND1(aes, mix, key, V3); \
	ROUND1(aes, mix, key, V4); \
	ROUND1(aes, mix, key, V5); \
	ROUND1(aes, mix, key, V6); \
	ROUND1(aes, mix, key, V7)

#define LAST1(aes, b) \
	aes  V29.B16, b.B16; \
	VEOR V30.B16, b.B16, b.B16

#define LAST8(aes) \
	LAST1(aes, V0); \
	LAST1(aes, V1); \
	LAST1(aes, V2); \
	LAST1(aes, V3); \
	LAST1(aes, V4); \
	LAST1(aes, V5); \
	LAST1(aes, V6); \
	LAST1(aes, V7)

// FOUR are the rounds that only AES-256 has, NINE those of both but the last.
#define FOUR(aes, mix) \
	ROUND8(aes, mix, V16); \
	ROUND8(aes, mix, V17); \
	ROUND8(aes, mix, V18); \
	ROUND8(aes, mix, V19)

#define NINE(aes, mix) \
	ROUND8(aes, mix, V20); \
	ROUND8(aes, mix, V21); \
	ROUND8(aes, mix, V22); \
	ROUND8(aes, mix, V23); \
	ROUND8(aes, mix, V24); \
	ROUND8(aes, mix, V25); \
	ROUND8(aes, mix, V26); \
	ROUND8(aes, mix, V27); \
	ROUND8(aes, mix, V28)

#define FOUR1(aes, mix) \
	ROUND1(aes, mix, V16, V0); \
	ROUND1(aes, mix, V17, V0); \
	ROUND1(aes, mix, V18, V0); \
	ROUND1(aes, mix, V19, V0)

#define NINE1(aes, mix) \
	ROUND1(aes, mix, V20, V0); \
	ROUND1(aes, mix, V21, V0); \
	ROUND1(aes, mix, V22, V0); \
	ROUND1(aes, mix, V23, V0); \
	ROUND1(aes, mix, V24, V0); \
	ROUND1(aes, mix, V25, V0); \
	ROUND1(aes, mix, V26, V0); \
	ROUND1(aes, mix, V27, V0); \
	ROUND1(aes, mix, V28, V0)

// CLEAR clears all vector registers.
#define CLEAR \
	VEOR V0.B16, V0.B16, V0.B16; \
	VEOR V1.B16, V1.B16, V1.B16; \
	VEOR V2.B16, V2.B16, V2.B16; \
	VEOR V3.B16, V3.B16, V3.B16; \
	VEOR V4.B16, V4.B16, V4.B16; \
	VEOR V5.B16, V5.B16, V5.B16; \
	VEOR V6.B16, V6.B16, V6.B16; \
	VEOR V7.B16, V7.B16, V7.B16; \
	VEOR V8.B16, V8.B16, V8.B16; \
	VEOR V9.B16, V9.B16, V9.B16; \
	VEOR V10.B16, V10.B16, V10.B16; \
	VEOR V11.B16, V11.B16, V11.B16; \
	VEOR V12.B16, V12.B16, V12.B16; \
	VEOR V13.B16, V13.B16, V13.B16; \
	VEOR V14.B16, V14.B16, V14.B16; \
	VEOR V15.B16, V15.B16, V15.B16; \
	VEOR V16.B16, V16.B16, V16.B16; \
	VEOR V17.B16, V17.B16, V17.B16; \
	VEOR V18.B16, V18.B16, V18.B16; \
	VEOR V19.B16, V19.B16, V19.B16; \
	VEOR V20.B16, V20.B16, V20.B16; \
	VEOR V21.B16, V21.B16, V21.B16; \
	VEOR V22.B16, V22.B16, V22.B16; \
	VEOR V23.B16, V23.B16, V23.B16; \
	VEOR V24.B16, V24.B16, V24.B16; \
	VEOR V25.B16, V25.B16, V25.B16; \
	VEOR V26.B16, V26.B16, V26.B16; \
	VEOR V27.B16, V27.B16, V27.B16; \
	VEOR V28.B16, V28.B16, V28.B16; \
	VEOR V29.B16, V29.B16, V29.B16; \
	VEOR V30.B16, V30.B16, V30.B16; \
	VEOR V31.B16, V31.B16, V31.B16

// func encryptAES(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)
TEXT ·encryptAES(SB), NOSPLIT, $0-64
	// 1. Arguments, round keys.
	MOVD keys+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD ts+16(FP), R2
	MOVD dst+24(FP), R3
	MOVD src+32(FP), R4
	MOVD first+40(FP), R5
	MOVD per+48(FP), R6
	MOVD total+56(FP), R7
	KEYS(64, 6)

	// 2. A data unit.
unit:
	UNIT

	// 3. A batch: input, tweaks, rounds, output.
batch:
	TWEAK8
	VLD1.P 64(R4), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R4), [V4.B16, V5.B16, V6.B16, V7.B16]
	ADD8
	CMP    $10, R1
	BEQ    ten
	FOUR(AESE, AESMC)

ten:
	NINE(AESE, AESMC)
	LAST8(AESE)
	ADD8
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R3)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R3)
	SUBS   $1, R5
	BNE    batch

	// 4. On to the next unit.
	CBZ  R7, done
	ADD  $16, R2
	MOVD R6, R5
	B    unit

	// 5. The tweak of the next block; nothing stays in registers.
done:
	STP (R9, R10), (R2)
	CLEAR
	RET

// func decryptAES(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)
TEXT ·decryptAES(SB), NOSPLIT, $0-64
	// 1. Arguments, round keys.
	MOVD keys+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD ts+16(FP), R2
	MOVD dst+24(FP), R3
	MOVD src+32(FP), R4
	MOVD first+40(FP), R5
	MOVD per+48(FP), R6
	MOVD total+56(FP), R7
	KEYS(64, 6)

	// 2. A data unit.
unit:
	UNIT

	// 3. A batch: input, tweaks, rounds, output.
batch:
	TWEAK8
	VLD1.P 64(R4), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R4), [V4.B16, V5.B16, V6.B16, V7.B16]
	ADD8
	CMP    $10, R1
	BEQ    ten
	FOUR(AESD, AESIMC)

ten:
	NINE(AESD, AESIMC)
	LAST8(AESD)
	ADD8
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R3)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R3)
	SUBS   $1, R5
	BNE    batch

	// 4. On to the next unit.
	CBZ  R7, done
	ADD  $16, R2
	MOVD R6, R5
	B    unit

	// 5. The tweak of the next block; nothing stays in registers.
done:
	STP (R9, R10), (R2)
	CLEAR
	RET

// func encryptBlockAES(keys *lane, rounds int, t *tweak, dst, src *byte)
TEXT ·encryptBlockAES(SB), NOSPLIT, $0-40
	MOVD keys+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD t+16(FP), R2
	MOVD dst+24(FP), R3
	MOVD src+32(FP), R4
	KEYS(64, 6)
	LDP  (R2), (R9, R10)
	TWEAK(V8)
	VLD1 (R4), [V0.B16]
	VEOR V8.B16, V0.B16, V0.B16
	CMP  $10, R1
	BEQ  ten
	FOUR1(AESE, AESMC)

ten:
	NINE1(AESE, AESMC)
	LAST1(AESE, V0)
	VEOR V8.B16, V0.B16, V0.B16
	VST1 [V0.B16], (R3)
	STP  (R9, R10), (R2)
	CLEAR
	RET

// func decryptBlockAES(keys *lane, rounds int, t *tweak, dst, src *byte)
TEXT ·decryptBlockAES(SB), NOSPLIT, $0-40
	MOVD keys+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD t+16(FP), R2
	MOVD dst+24(FP), R3
	MOVD src+32(FP), R4
	KEYS(64, 6)
	LDP  (R2), (R9, R10)
	TWEAK(V8)
	VLD1 (R4), [V0.B16]
	VEOR V8.B16, V0.B16, V0.B16
	CMP  $10, R1
	BEQ  ten
	FOUR1(AESD, AESIMC)

ten:
	NINE1(AESD, AESIMC)
	LAST1(AESD, V0)
	VEOR V8.B16, V0.B16, V0.B16
	VST1 [V0.B16], (R3)
	STP  (R9, R10), (R2)
	CLEAR
	RET

// func tweaksAES(keys *roundKey, rounds int, ts *[tweakBatch]tweak, n int)
//
// Eight at a time: R5 counts, the rest is as above.
TEXT ·tweaksAES(SB), NOSPLIT, $0-32
	MOVD keys+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD ts+16(FP), R2
	MOVD n+24(FP), R5
	KEYS(16, 4)
	MOVD R2, R3

eight:
	VLD1.P 64(R2), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R2), [V4.B16, V5.B16, V6.B16, V7.B16]
	CMP    $10, R1
	BEQ    ten
	FOUR(AESE, AESMC)

ten:
	NINE(AESE, AESMC)
	LAST8(AESE)
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R3)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R3)
	SUBS   $8, R5
	BGT    eight
	CLEAR
	RET
