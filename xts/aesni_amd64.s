//go:build !purego

#include "textflag.h"

// The tier "aesni": SSE with AES-NI and PCLMULQDQ, eight blocks in flight.
//
// Round keys are memory operands here too (16 bytes of a lane, aligned as SSE
// wants it), there is no stack frame, and all vector registers are
// cleared before a function returns.
//
// Registers of encryptAESNI and decryptAESNI:
//
//	X0…X7    eight blocks; scratch between two batches
//	X8…X15   their tweaks: register 8+i holds T·x^i
//	AX       lanes of the round keys: the whitening and, of AES-256, rounds 1…4
//	BX       AX + width·(rounds-10): from here on AES-128 and AES-256 are alike
//	CX       batches (of 128 bytes) left of this data unit
//	DX       batches left after this data unit
//	SI, DI   source, destination
//	R8       encrypted tweak of this data unit
//	R9       batches of a whole data unit
//	R10      rounds

// KEYS loads the arguments that all functions have, and points BX. Round keys are
// 1<<width bytes apart. (field_amd64.s has the constant below.)
#define KEYS(t, width) \
	MOVQ keys+0(FP), AX; \
	MOVQ rounds+8(FP), R10; \
	MOVQ t+16(FP), R8; \
	LEAQ -10(R10), BX; \
	SHLQ $width, BX; \
	ADDQ AX, BX

// UNIT takes this data unit's batches off what is left: CX, or fewer.
#define UNIT \
	CMPQ    CX, DX; \
	CMOVQHI DX, CX; \
	SUBQ    CX, DX

// DOUBLE is out = in·x: the top bits of both halves, brought to the bottom, enter
// the high half or come back times the polynomial.
#define DOUBLE(in, out, tmp, carry) \
	MOVOU     in, tmp; \
	MOVOU     in, out; \
	PSRLQ     $63, tmp; \
	PSLLQ     $1, out; \
	MOVOU     tmp, carry; \
	PCLMULQDQ $0x01, ·poly(SB), tmp; \
	PSLLDQ    $8, carry; \
	PXOR      tmp, out; \
	PXOR      carry, out

// BYTE is tweak = tweak·x^8.
#define BYTE(tweak, tmp) \
	MOVOU     tweak, tmp; \
	PSRLDQ    $15, tmp; \
	PCLMULQDQ $0x00, ·poly(SB), tmp; \
	PSLLDQ    $1, tweak; \
	PXOR      tmp, tweak

// TWEAKS fills X8…X15 from the unit's tweak.
#define TWEAKS \
	MOVOU (R8), X8; \
	DOUBLE(X8, X9, X0, X1); \
	DOUBLE(X9, X10, X2, X3); \
	DOUBLE(X10, X11, X4, X5); \
	DOUBLE(X11, X12, X6, X7); \
	DOUBLE(X12, X13, X0, X1); \
	DOUBLE(X13, X14, X2, X3); \
	DOUBLE(X14, X15, X4, X5)

// TAKE loads a block and adds its tweak.
#define TAKE(i, data, tweak) \
	MOVOU i(SI), data; \
	PXOR  tweak, data

#define TAKE8 \
	TAKE(0, X0, X8); \
	TAKE(16, X1, X9); \
	TAKE(32, X2, X10); \
	TAKE(48, X3, X11); \
	TAKE(64, X4, X12); \
	TAKE(80, X5, X13); \
	TAKE(96, X6, X14); \
	TAKE(112, X7, X15)

// EACH does one round, or the whitening, with all eight blocks.
#define EACH(op, key) \
	op key, X0; \
	op key, X1; \
	op key, X2; \
	op key, X3; \
	op key, X4; \
	op key, X5; \
	op key, X6; \
	op key, X7

// ONE does so with one block.
#define ONE(op, key) op key, X0

// FOUR are rounds 1…4 of AES-256, TEN the last ten of either. It is w bytes from round
// key to round key; of a lane they take one copy after the other, q bytes
// apart, because two loads in one cycle must not come from the same bank of the cache.
#define FOUR(blocks, w, q, op) \
	blocks(op, (1*w+1*q)(AX)); \
	blocks(op, (2*w+2*q)(AX)); \
	blocks(op, (3*w+3*q)(AX)); \
	blocks(op, (4*w)(AX))

#define TEN(blocks, w, q, op, oplast) \
	blocks(op, (1*w+1*q)(BX)); \
	blocks(op, (2*w+2*q)(BX)); \
	blocks(op, (3*w+3*q)(BX)); \
	blocks(op, (4*w)(BX)); \
	blocks(op, (5*w+1*q)(BX)); \
	blocks(op, (6*w+2*q)(BX)); \
	blocks(op, (7*w+3*q)(BX)); \
	blocks(op, (8*w)(BX)); \
	blocks(op, (9*w+1*q)(BX)); \
	blocks(oplast, (10*w+2*q)(BX))

// PUT adds the tweak and writes a block of output.
#define PUT(i, data, tweak) \
	PXOR  tweak, data; \
	MOVOU data, i(DI)

#define PUT8 \
	PUT(0, X0, X8); \
	PUT(16, X1, X9); \
	PUT(32, X2, X10); \
	PUT(48, X3, X11); \
	PUT(64, X4, X12); \
	PUT(80, X5, X13); \
	PUT(96, X6, X14); \
	PUT(112, X7, X15)

// NEXT writes a block, steps its tweak by one batch (x^8), and takes a block
// of that batch. Nothing here but the store waits for the rounds.
#define NEXT(i, data, tweak) \
	PUT(i, data, tweak); \
	BYTE(tweak, data); \
	TAKE(128+i, data, tweak)

#define NEXT8 \
	NEXT(0, X0, X8); \
	NEXT(16, X1, X9); \
	NEXT(32, X2, X10); \
	NEXT(48, X3, X11); \
	NEXT(64, X4, X12); \
	NEXT(80, X5, X13); \
	NEXT(96, X6, X14); \
	NEXT(112, X7, X15); \
	ADDQ $128, SI; \
	ADDQ $128, DI

// CLEAR clears all vector registers.
#define CLEAR \
	PXOR X0, X0; \
	PXOR X1, X1; \
	PXOR X2, X2; \
	PXOR X3, X3; \
	PXOR X4, X4; \
	PXOR X5, X5; \
	PXOR X6, X6; \
	PXOR X7, X7; \
	PXOR X8, X8; \
	PXOR X9, X9; \
	PXOR X10, X10; \
	PXOR X11, X11; \
	PXOR X12, X12; \
	PXOR X13, X13; \
	PXOR X14, X14; \
	PXOR X15, X15

// func encryptAESNI(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)
TEXT ·encryptAESNI(SB), NOSPLIT, $0-64
	// 1. Arguments.
	KEYS(ts, 6)
	MOVQ dst+24(FP), DI
	MOVQ src+32(FP), SI
	MOVQ first+40(FP), CX
	MOVQ per+48(FP), R9
	MOVQ total+56(FP), DX

	// 2. A data unit: its tweaks, its first batch.
unit:
	UNIT
	TWEAKS
	TAKE8

	// 3. Whitening and rounds.
	PCALIGN $64

batch:
	EACH(PXOR, 0(AX))
	CMPQ R10, $10
	JE   ten
	FOUR(EACH, 64, 16, AESENC)

ten:
	TEN(EACH, 64, 16, AESENC, AESENCLAST)
	DECQ CX
	JZ   last

	// 4. Between two batches of a unit.
	NEXT8
	JMP batch

	// 5. The last batch of a unit; on to the next one.
last:
	PUT8
	TESTQ DX, DX
	JZ    done
	ADDQ  $128, SI
	ADDQ  $128, DI
	ADDQ  $16, R8
	MOVQ  R9, CX
	JMP   unit

	// 6. The tweak of the next block; nothing stays in registers.
done:
	BYTE(X8, X0)
	MOVOU X8, (R8)
	CLEAR
	RET

// func decryptAESNI(keys *lane, rounds int, ts *tweak, dst, src *byte, first, per, total int)
TEXT ·decryptAESNI(SB), NOSPLIT, $0-64
	// 1. Arguments.
	KEYS(ts, 6)
	MOVQ dst+24(FP), DI
	MOVQ src+32(FP), SI
	MOVQ first+40(FP), CX
	MOVQ per+48(FP), R9
	MOVQ total+56(FP), DX

	// 2. A data unit: its tweaks, its first batch.
unit:
	UNIT
	TWEAKS
	TAKE8

	// 3. Whitening and rounds.
	PCALIGN $64

batch:
	EACH(PXOR, 0(AX))
	CMPQ R10, $10
	JE   ten
	FOUR(EACH, 64, 16, AESDEC)

ten:
	TEN(EACH, 64, 16, AESDEC, AESDECLAST)
	DECQ CX
	JZ   last

	// 4. Between two batches of a unit.
	NEXT8
	JMP batch

	// 5. The last batch of a unit; on to the next one.
last:
	PUT8
	TESTQ DX, DX
	JZ    done
	ADDQ  $128, SI
	ADDQ  $128, DI
	ADDQ  $16, R8
	MOVQ  R9, CX
	JMP   unit

	// 6. The tweak of the next block; nothing stays in registers.
done:
	BYTE(X8, X0)
	MOVOU X8, (R8)
	CLEAR
	RET

// func encryptBlockAESNI(keys *lane, rounds int, t *tweak, dst, src *byte)
TEXT ·encryptBlockAESNI(SB), NOSPLIT, $0-40
	KEYS(t, 6)
	MOVQ  dst+24(FP), DI
	MOVQ  src+32(FP), SI
	MOVOU (R8), X1
	TAKE(0, X0, X1)
	PXOR  (AX), X0
	CMPQ  R10, $10
	JE    ten
	FOUR(ONE, 64, 16, AESENC)

ten:
	TEN(ONE, 64, 16, AESENC, AESENCLAST)
	PUT(0, X0, X1)
	DOUBLE(X1, X2, X3, X4)
	MOVOU X2, (R8)
	CLEAR
	RET

// func decryptBlockAESNI(keys *lane, rounds int, t *tweak, dst, src *byte)
TEXT ·decryptBlockAESNI(SB), NOSPLIT, $0-40
	KEYS(t, 6)
	MOVQ  dst+24(FP), DI
	MOVQ  src+32(FP), SI
	MOVOU (R8), X1
	TAKE(0, X0, X1)
	PXOR  (AX), X0
	CMPQ  R10, $10
	JE    ten
	FOUR(ONE, 64, 16, AESDEC)

ten:
	TEN(ONE, 64, 16, AESDEC, AESDECLAST)
	PUT(0, X0, X1)
	DOUBLE(X1, X2, X3, X4)
	MOVOU X2, (R8)
	CLEAR
	RET

// func tweaksAESNI(keys *roundKey, rounds int, ts *[tweakBatch]tweak, n int)
//
// Eight at a time: CX counts, the rest is as above.
TEXT ·tweaksAESNI(SB), NOSPLIT, $0-32
	KEYS(ts, 4)
	MOVQ n+24(FP), CX

eight:
	MOVOU 0(R8), X0
	MOVOU 16(R8), X1
	MOVOU 32(R8), X2
	MOVOU 48(R8), X3
	MOVOU 64(R8), X4
	MOVOU 80(R8), X5
	MOVOU 96(R8), X6
	MOVOU 112(R8), X7
	EACH(PXOR, 0(AX))
	CMPQ  R10, $10
	JE    ten
	FOUR(EACH, 16, 0, AESENC)

ten:
	TEN(EACH, 16, 0, AESENC, AESENCLAST)
	MOVOU X0, 0(R8)
	MOVOU X1, 16(R8)
	MOVOU X2, 32(R8)
	MOVOU X3, 48(R8)
	MOVOU X4, 64(R8)
	MOVOU X5, 80(R8)
	MOVOU X6, 96(R8)
	MOVOU X7, 112(R8)
	ADDQ  $128, R8
	SUBQ  $8, CX
	JHI   eight
	CLEAR
	RET
