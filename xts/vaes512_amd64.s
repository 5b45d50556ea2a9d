//go:build !purego

#include "textflag.h"

// The tier "vaes512": AVX-512 (F and BW) with VAES and VPCLMULQDQ, a granule (32
// blocks) in flight.
//
// As in the tier "vaes", round keys are never in a register, there is no stack
// frame, and all vector registers are cleared before a function returns. One memory
// operand serves four blocks here: it is how often keys are read that limits
// the narrower tiers.
//
// Registers of encryptVAES512 and decryptVAES512:
//
//	Z0…Z7      32 blocks, four a register
//	Z8…Z15     their tweaks: register 8+i holds T·x^4i…T·x^(4i+3)
//	Z16…Z23    the tweaks of the next granule, made during the rounds of this one
//	Z24…Z29    scratch
//	Z30        T of a unit's first granule, in all lanes
//	Z31        the polynomial
//	AX         lanes of the round keys: the whitening and, of AES-256, rounds 1…4
//	BX         AX + 64·(rounds-10): from here on AES-128 and AES-256 are alike
//	CX         granules left of this data unit
//	DX         granules left of all
//	SI, DI     source, destination
//	R8         encrypted tweak of this data unit
//	R9         granules of a whole data unit
//	R10        rounds

// ARGS loads the arguments and points BX. (field_amd64.s has the constants below.)
#define ARGS \
	MOVQ keys+0(FP), AX; \
	MOVQ rounds+8(FP), R10; \
	MOVQ ts+16(FP), R8; \
	MOVQ dst+24(FP), DI; \
	MOVQ src+32(FP), SI; \
	MOVQ first+40(FP), CX; \
	MOVQ per+48(FP), R9; \
	MOVQ total+56(FP), DX; \
	LEAQ -10(R10), BX; \
	SHLQ $6, BX; \
	ADDQ AX, BX; \
	VMOVDQU64 ·poly(SB), Z31

// SPREAD makes out of T (in all lanes of Z30) its multiples by x^k…x^(k+3), with i =
// 16k. What leaves the low half of a lane enters its high half, what leaves the
// high half comes back times the polynomial: VPTERNLOGQ $0x96 adds all three.
#define SPREAD(i, out, tmp, carry) \
	VPSRLVQ    ·right+i(SB), Z30, tmp; \
	VPSLLVQ    ·left+i(SB), Z30, out; \
	VPSLLDQ    $8, tmp, carry; \
	VPCLMULQDQ $0x01, Z31, tmp, tmp; \
	VPTERNLOGQ $0x96, carry, tmp, out

// BYTES is out = in·x^8n; drop = 16-n. out may be in.
#define BYTES(n, drop, in, out, tmp) \
	VPSRLDQ    $drop, in, tmp; \
	VPCLMULQDQ $0x00, Z31, tmp, tmp; \
	VPSLLDQ    $n, in, out; \
	VPXORQ     tmp, out, out

// TAKE loads four blocks and adds tweaks and whitening key.
#define TAKE(i, data, next, tweaks) \
	VMOVDQU64  i(SI), data; \
	VPTERNLOGQ $0x96, (AX), next, data; \
	VMOVDQA64  next, tweaks

#define TAKE8 \
	TAKE(0, Z0, Z16, Z8); \
	TAKE(64, Z1, Z17, Z9); \
	TAKE(128, Z2, Z18, Z10); \
	TAKE(192, Z3, Z19, Z11); \
	TAKE(256, Z4, Z20, Z12); \
	TAKE(320, Z5, Z21, Z13); \
	TAKE(384, Z6, Z22, Z14); \
	TAKE(448, Z7, Z23, Z15)

// EACH does one round with all blocks.
#define EACH(op, key) \
	op key, Z0, Z0; \
	op key, Z1, Z1; \
	op key, Z2, Z2; \
	op key, Z3, Z3; \
	op key, Z4, Z4; \
	op key, Z5, Z5; \
	op key, Z6, Z6; \
	op key, Z7, Z7

// UNIT begins a data unit: Z16 and Z17 from its tweak.
#define UNIT \
	VBROADCASTI32X4 (R8), Z30; \
	SPREAD(0x00, Z16, Z24, Z25); \
	SPREAD(0x40, Z17, Z26, Z27)

// FOUR are rounds 1…4 of AES-256.
#define FOUR(op) \
	EACH(op, 64(AX)); \
	EACH(op, 128(AX)); \
	EACH(op, 192(AX)); \
	EACH(op, 256(AX))

// TEN are the last ten rounds of either, and between them Z18…Z23 out of Z16 and
// Z17.
#define TEN(op, oplast) \
	EACH(op, 64(BX)); \
	EACH(op, 128(BX)); \
	EACH(op, 192(BX)); \
	BYTES(1, 15, Z16, Z18, Z24); \
	EACH(op, 256(BX)); \
	BYTES(1, 15, Z17, Z19, Z25); \
	EACH(op, 320(BX)); \
	BYTES(2, 14, Z16, Z20, Z26); \
	EACH(op, 384(BX)); \
	BYTES(2, 14, Z17, Z21, Z27); \
	EACH(op, 448(BX)); \
	BYTES(2, 14, Z18, Z22, Z24); \
	EACH(op, 512(BX)); \
	BYTES(2, 14, Z19, Z23, Z25); \
	EACH(op, 576(BX)); \
	EACH(oplast, 640(BX))

// TWEAKS is the same without rounds.
#define TWEAKS \
	BYTES(1, 15, Z16, Z18, Z24); \
	BYTES(1, 15, Z17, Z19, Z25); \
	BYTES(2, 14, Z16, Z20, Z26); \
	BYTES(2, 14, Z17, Z21, Z27); \
	BYTES(2, 14, Z18, Z22, Z24); \
	BYTES(2, 14, Z19, Z23, Z25)

// PUT adds the tweaks and writes four blocks of output.
#define PUT(i, data, tweaks) \
	VPXORQ    tweaks, data, data; \
	VMOVDQU64 data, i(DI)

#define PUT8 \
	PUT(0, Z0, Z8); \
	PUT(64, Z1, Z9); \
	PUT(128, Z2, Z10); \
	PUT(192, Z3, Z11); \
	PUT(256, Z4, Z12); \
	PUT(320, Z5, Z13); \
	PUT(384, Z6, Z14); \
	PUT(448, Z7, Z15)

// CLEAR clears all vector registers; VZEROALL leaves Z16…Z31 alone.
#define CLEAR \
	VZEROALL; \
	VPXORQ Z16, Z16, Z16; \
	VPXORQ Z17, Z17, Z17; \
	VPXORQ Z18, Z18, Z18; \
	VPXORQ Z19, Z19, Z19; \
	VPXORQ Z20, Z20, Z20; \
	VPXORQ Z21, Z21, Z21; \
	VPXORQ Z22, Z22, Z22; \
	VPXORQ Z23, Z23, Z23; \
	VPXORQ Z24, Z24, Z24; \
	VPXORQ Z25, Z25, Z25; \
	VPXORQ Z26, Z26, Z26; \
	VPXORQ Z27, Z27, Z27; \
	VPXORQ Z28, Z28, Z28; \
	VPXORQ Z29, Z29, Z29; \
	VPXORQ Z30, Z30, Z30; \
	VPXORQ Z31, Z31, Z31

// func encryptVAES512(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)
TEXT ·encryptVAES512(SB), NOSPLIT, $0-64
	// 1. Arguments, tweaks and input of the first granule.
	ARGS
	UNIT
	TWEAKS
	TAKE8

	// 2. The first tweaks of the next granule. In the same unit (also if there is
	// no next) they are those of this one times x^32.
	PCALIGN $64

granule:
	DECQ DX
	JZ   same
	DECQ CX
	JNZ  same
	ADDQ $16, R8
	MOVQ R9, CX
	UNIT
	JMP  rounds

same:
	BYTES(4, 12, Z8, Z16, Z24)
	BYTES(4, 12, Z9, Z17, Z25)

	// 3. Rounds, and the other tweaks of the next granule beside them.
rounds:
	CMPQ R10, $10
	JE   ten
	FOUR(VAESENC)

ten:
	TEN(VAESENC, VAESENCLAST)

	// 4. Output, and input of the next granule.
	PUT8
	TESTQ DX, DX
	JZ    done
	ADDQ  $512, SI
	ADDQ  $512, DI
	TAKE8
	JMP   granule

	// 5. The tweak of the next block; nothing stays in registers.
done:
	VMOVDQA64 Z16, Z0
	VMOVDQU   X0, (R8)
	CLEAR
	RET

// func decryptVAES512(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)
TEXT ·decryptVAES512(SB), NOSPLIT, $0-64
	// 1. Arguments, tweaks and input of the first granule.
	ARGS
	UNIT
	TWEAKS
	TAKE8

	// 2. The first tweaks of the next granule. In the same unit (also if there is
	// no next) they are those of this one times x^32.
	PCALIGN $64

granule:
	DECQ DX
	JZ   same
	DECQ CX
	JNZ  same
	ADDQ $16, R8
	MOVQ R9, CX
	UNIT
	JMP  rounds

same:
	BYTES(4, 12, Z8, Z16, Z24)
	BYTES(4, 12, Z9, Z17, Z25)

	// 3. Rounds, and the other tweaks of the next granule beside them.
rounds:
	CMPQ R10, $10
	JE   ten
	FOUR(VAESDEC)

ten:
	TEN(VAESDEC, VAESDECLAST)

	// 4. Output, and input of the next granule.
	PUT8
	TESTQ DX, DX
	JZ    done
	ADDQ  $512, SI
	ADDQ  $512, DI
	TAKE8
	JMP   granule

	// 5. The tweak of the next block; nothing stays in registers.
done:
	VMOVDQA64 Z16, Z0
	VMOVDQU   X0, (R8)
	CLEAR
	RET
