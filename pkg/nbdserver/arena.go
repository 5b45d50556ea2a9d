package nbdserver

import (
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// Sizes of the arena, in bytes.
const (
	minPiece    = 4 << 10
	blockSize   = 256 << 10 // also the largest piece
	regionSize  = 4 << 20   // mapped at a time
	pieceKinds  = 7         // 4 KiB, 8 KiB … 256 KiB
	maxResident = 64 << 20  // free blocks that keep their pages
)

// arena hands out page-aligned pieces of memory in powers of two, outside Go's
// heap: payload never adds work for the collector. Blocks are cut
// into pieces of one size while any of them is in use. It is guarded by memory.mu.
type arena struct {
	cut      [pieceKinds]*block // blocks with free pieces, by size
	resident *block             // whole free blocks whose pages are there
	returned *block             // whole free blocks whose pages went back to the kernel
	nfree    int                // length of resident
}

// block is 256 KiB of the arena.
type block struct {
	mem        []byte
	kind       int
	free       uint64 // bit i: piece i is free
	prev, next *block
}

// piece is a part of a block. b is the part of it in use.
type piece struct {
	b   []byte
	blk *block
	idx int
}

// pieceKind is the kind of the smallest piece that holds n bytes, at most
// blockSize.
func pieceKind(n int) int {
	return max(0, bits.Len(uint(n-1))-bits.Len(uint(minPiece-1)))
}

// pieceBytes is the size of a piece for n bytes.
func pieceBytes(n int) int64 { return minPiece << pieceKind(n) }

func allFree(kind int) uint64 {
	return ^uint64(0) >> (64 - (blockSize / minPiece >> kind))
}

// get returns a piece with n bytes in use. It fails when the kernel gives no memory.
func (a *arena) get(n int) (piece, error) {
	kind := pieceKind(n)
	blk := a.cut[kind]
	if blk == nil {
		var err error
		if blk, err = a.whole(); err != nil {
			return piece{}, err
		}
		blk.kind, blk.free = kind, allFree(kind)
		push(&a.cut[kind], blk)
	}
	i := bits.TrailingZeros64(blk.free)
	blk.free &^= 1 << i
	if blk.free == 0 {
		unlink(&a.cut[kind], blk)
	}
	at := i * (minPiece << kind)
	return piece{b: blk.mem[at : at+n : at+minPiece<<kind], blk: blk, idx: i}, nil
}

// put takes p back.
func (a *arena) put(p piece) {
	blk := p.blk
	if blk.free == 0 {
		push(&a.cut[blk.kind], blk)
	}
	blk.free |= 1 << p.idx
	if blk.free != allFree(blk.kind) {
		return
	}
	unlink(&a.cut[blk.kind], blk)
	if a.nfree < maxResident/blockSize || unix.Madvise(blk.mem, unix.MADV_DONTNEED) != nil {
		push(&a.resident, blk)
		a.nfree++
		return
	}
	push(&a.returned, blk)
}

// whole takes a free block, mapping more when there is none.
func (a *arena) whole() (*block, error) {
	if blk := a.resident; blk != nil {
		unlink(&a.resident, blk)
		a.nfree--
		return blk, nil
	}
	if a.returned == nil {
		mem, err := unix.Mmap(-1, 0, regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil, fmt.Errorf("memory for payload: %w", err)
		}
		// Payload is plaintext: keep it out of cores. Where the kernel
		// can't, cores are off anyway.
		_ = unix.Madvise(mem, unix.MADV_DONTDUMP)
		for at := 0; at < regionSize; at += blockSize {
			push(&a.returned, &block{mem: mem[at : at+blockSize : at+blockSize]})
		}
	}
	blk := a.returned
	unlink(&a.returned, blk)
	return blk, nil
}

func push(list **block, b *block) {
	b.prev, b.next = nil, *list
	if *list != nil {
		(*list).prev = b
	}
	*list = b
}

func unlink(list **block, b *block) {
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		*list = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	}
	b.prev, b.next = nil, nil
}
