//go:build !purego

#include "textflag.h"

// The tier "vaes": AVX2 with VAES and VPCLMULQDQ, sixteen blocks in flight.
//
// Round keys are never in a register: the whitening and every round read their
// lane (half of it: the round key twice) as a memory operand. So what the frame of a
// signal can hold of these functions is data and tweaks. They have no stack
// frame, spill nothing, and clear all vector registers before they return.
//
// Registers of encryptVAES and decryptVAES:
//
//	Y0…Y7    sixteen blocks, two a register; scratch between two batches
//	Y8…Y15   their tweaks: register 8+i holds T·x^2i and T·x^(2i+1)
//	AX       lanes of the round keys: the whitening and, of AES-256, rounds 1…4
//	BX       AX + 64·(rounds-10): from here on AES-128 and AES-256 are alike
//	CX       batches (of 256 bytes) left of this data unit
//	DX       batches left after this data unit
//	SI, DI   source, destination
//	R8       encrypted tweak of this data unit
//	R9       batches of a whole data unit
//	R10      rounds

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
	ADDQ AX, BX

// UNIT takes this data unit's batches off what is left: CX, or fewer.
#define UNIT \
	CMPQ    CX, DX; \
	CMOVQHI DX, CX; \
	SUBQ    CX, DX

// SPREAD makes out of T (in both lanes of Y15) its multiples by x^k and
// x^(k+1), with i = 16k. What leaves the low half of a lane enters its high half,
// what leaves the high half comes back times the polynomial.
#define SPREAD(i, out, tmp, carry) \
	VPSRLVQ    ·right+i(SB), Y15, tmp; \
	VPSLLVQ    ·left+i(SB), Y15, out; \
	VPSLLDQ    $8, tmp, carry; \
	VPCLMULQDQ $0x01, ·poly(SB), tmp, tmp; \
	VPXOR      carry, out, out; \
	VPXOR      tmp, out, out

// BYTES is out = in·x^8n; drop = 16-n. out may be in.
#define BYTES(n, drop, in, out, tmp) \
	VPSRLDQ    $drop, in, tmp; \
	VPCLMULQDQ $0x00, ·poly(SB), tmp, tmp; \
	VPSLLDQ    $n, in, out; \
	VPXOR      tmp, out, out

// TWEAKS fills Y8…Y15 from the unit's tweak.
#define TWEAKS \
	VBROADCASTI128 (R8), Y15; \
	SPREAD(0x00, Y8, Y0, Y1); \
	SPREAD(0x20, Y9, Y2, Y3); \
	SPREAD(0x40, Y10, Y4, Y5); \
	SPREAD(0x60, Y11, Y6, Y7); \
	BYTES(1, 15, Y8, Y12, Y0); \
	BYTES(1, 15, Y9, Y13, Y2); \
	BYTES(1, 15, Y10, Y14, Y4); \
	BYTES(1, 15, Y11, Y15, Y6)

// LOAD8 takes a batch's input and adds the tweaks.
#define LOAD8 \
	VPXOR 0(SI), Y8, Y0; \
	VPXOR 32(SI), Y9, Y1; \
	VPXOR 64(SI), Y10, Y2; \
	VPXOR 96(SI), Y11, Y3; \
	VPXOR 128(SI), Y12, Y4; \
	VPXOR 160(SI), Y13, Y5; \
	VPXOR 192(SI), Y14, Y6; \
	VPXOR 224(SI), Y15, Y7

// EACH does one round, or the whitening, with all sixteen blocks.
#define EACH(op, key) \
	op key, Y0, Y0; \
	op key, Y1, Y1; \
	op key, Y2, Y2; \
	op key, Y3, Y3; \
	op key, Y4, Y4; \
	op key, Y5, Y5; \
	op key, Y6, Y6; \
	op key, Y7, Y7

// FOUR are rounds 1…4 of AES-256, TEN the last ten of either. The rounds take the
// halves of their lanes by turns: two loads in one cycle must not come from the same
// bank of the cache.
#define FOUR(op) \
	EACH(op, 96(AX)); \
	EACH(op, 128(AX)); \
	EACH(op, 224(AX)); \
	EACH(op, 256(AX))

#define TEN(op, oplast) \
	EACH(op, 96(BX)); \
	EACH(op, 128(BX)); \
	EACH(op, 224(BX)); \
	EACH(op, 256(BX)); \
	EACH(op, 352(BX)); \
	EACH(op, 384(BX)); \
	EACH(op, 480(BX)); \
	EACH(op, 512(BX)); \
	EACH(op, 608(BX)); \
	EACH(oplast, 640(BX))

// STORE adds the tweaks and writes two blocks of output.
#define STORE(i, data, tweaks) \
	VPXOR   tweaks, data, data; \
	VMOVDQU data, i(DI)

#define STORE8 \
	STORE(0, Y0, Y8); \
	STORE(32, Y1, Y9); \
	STORE(64, Y2, Y10); \
	STORE(96, Y3, Y11); \
	STORE(128, Y4, Y12); \
	STORE(160, Y5, Y13); \
	STORE(192, Y6, Y14); \
	STORE(224, Y7, Y15)

// NEXT stores two blocks, steps their tweaks by one batch (x^16), and takes two
// blocks of that batch. Nothing here but the store waits for the rounds: the CPU
// does the rest while the blocks of other registers are still in theirs.
#define NEXT(i, data, tweaks) \
	STORE(i, data, tweaks); \
	BYTES(2, 14, tweaks, tweaks, data); \
	VPXOR 256+i(SI), tweaks, data

#define NEXT8 \
	NEXT(0, Y0, Y8); \
	NEXT(32, Y1, Y9); \
	NEXT(64, Y2, Y10); \
	NEXT(96, Y3, Y11); \
	NEXT(128, Y4, Y12); \
	NEXT(160, Y5, Y13); \
	NEXT(192, Y6, Y14); \
	NEXT(224, Y7, Y15); \
	ADDQ $256, SI; \
	ADDQ $256, DI

// func encryptVAES(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)
TEXT ·encryptVAES(SB), NOSPLIT, $0-64
	// 1. Arguments.
	ARGS

	// 2. A data unit: its tweaks, its first batch.
unit:
	UNIT
	TWEAKS
	LOAD8

	// 3. Whitening and rounds.
	PCALIGN $64

batch:
	EACH(VPXOR, 0(AX))
	CMPQ R10, $10
	JE   ten
	FOUR(VAESENC)

ten:
	TEN(VAESENC, VAESENCLAST)
	DECQ CX
	JZ   last

	// 4. Between two batches of a unit.
	NEXT8
	JMP batch

	// 5. The last batch of a unit; on to the next one.
last:
	STORE8
	TESTQ DX, DX
	JZ    done
	ADDQ  $256, SI
	ADDQ  $256, DI
	ADDQ  $16, R8
	MOVQ  R9, CX
	JMP   unit

	// 6. The tweak of the next block; nothing stays in registers.
done:
	BYTES(2, 14, Y8, Y8, Y0)
	VMOVDQU X8, (R8)
	VZEROALL
	RET

// func decryptVAES(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)
TEXT ·decryptVAES(SB), NOSPLIT, $0-64
	// 1. Arguments.
	ARGS

	// 2. A data unit: its tweaks, its first batch.
unit:
	UNIT
	TWEAKS
	LOAD8

	// 3. Whitening and rounds.
	PCALIGN $64

batch:
	EACH(VPXOR, 0(AX))
	CMPQ R10, $10
	JE   ten
	FOUR(VAESDEC)

ten:
	TEN(VAESDEC, VAESDECLAST)
	DECQ CX
	JZ   last

	// 4. Between two batches of a unit.
	NEXT8
	JMP batch

	// 5. The last batch of a unit; on to the next one.
last:
	STORE8
	TESTQ DX, DX
	JZ    done
	ADDQ  $256, SI
	ADDQ  $256, DI
	ADDQ  $16, R8
	MOVQ  R9, CX
	JMP   unit

	// 6. The tweak of the next block; nothing stays in registers.
done:
	BYTES(2, 14, Y8, Y8, Y0)
	VMOVDQU X8, (R8)
	VZEROALL
	RET
