//go:build !purego

#include "textflag.h"

// Constants of the tweaks' arithmetic in IEEE 1619's field, for registers of any
// width.

// The polynomial without x^128, in the low half of each 128-bit lane.
DATA ·poly+0x00(SB)/8, $0x87
DATA ·poly+0x08(SB)/8, $0
DATA ·poly+0x10(SB)/8, $0x87
DATA ·poly+0x18(SB)/8, $0
DATA ·poly+0x20(SB)/8, $0x87
DATA ·poly+0x28(SB)/8, $0
DATA ·poly+0x30(SB)/8, $0x87
DATA ·poly+0x38(SB)/8, $0
GLOBL ·poly(SB), RODATA|NOPTR, $0x40

// By how much both halves of lane k move to the left to become T·x^k, and by how much
// to the right to give what is lost thereby (64 leaves nothing).
DATA ·left+0x00(SB)/8, $0
DATA ·left+0x08(SB)/8, $0
DATA ·left+0x10(SB)/8, $1
DATA ·left+0x18(SB)/8, $1
DATA ·left+0x20(SB)/8, $2
DATA ·left+0x28(SB)/8, $2
DATA ·left+0x30(SB)/8, $3
DATA ·left+0x38(SB)/8, $3
DATA ·left+0x40(SB)/8, $4
DATA ·left+0x48(SB)/8, $4
DATA ·left+0x50(SB)/8, $5
DATA ·left+0x58(SB)/8, $5
DATA ·left+0x60(SB)/8, $6
DATA ·left+0x68(SB)/8, $6
DATA ·left+0x70(SB)/8, $7
DATA ·left+0x78(SB)/8, $7
GLOBL ·left(SB), RODATA|NOPTR, $0x80

DATA ·right+0x00(SB)/8, $64
DATA ·right+0x08(SB)/8, $64
DATA ·right+0x10(SB)/8, $63
DATA ·right+0x18(SB)/8, $63
DATA ·right+0x20(SB)/8, $62
DATA ·right+0x28(SB)/8, $62
DATA ·right+0x30(SB)/8, $61
DATA ·right+0x38(SB)/8, $61
DATA ·right+0x40(SB)/8, $60
DATA ·right+0x48(SB)/8, $60
DATA ·right+0x50(SB)/8, $59
DATA ·right+0x58(SB)/8, $59
DATA ·right+0x60(SB)/8, $58
DATA ·right+0x68(SB)/8, $58
DATA ·right+0x70(SB)/8, $57
DATA ·right+0x78(SB)/8, $57
GLOBL ·right(SB), RODATA|NOPTR, $0x80
