// Package keyscan looks for key material in memory that it does not know the
// layout of: for a known data key in every form that it could be kept or
// printed in, and for whatever has the structure of an AES key schedule,
// known or not.
package keyscan

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unsafe"

	"sealdisk/xts"
)

// Finding is a place where key material lies.
type Finding struct {
	Addr uint64
	What string
	// Where names the memory: a file, "[stack]", "" for anonymous memory.
	Where string
}

func (f Finding) String() string { return fmt.Sprintf("%#x (%s): %s", f.Addr, f.Where, f.What) }

// needleSize is how many bytes of a form are looked for at once: short enough
// that fragments are found, long enough that chance is not. Bitsliced round
// keys repeat themselves, so more of them is taken.
const (
	needleSize     = 16
	longNeedleSize = 32
)

// Needles are fragments of a key's forms. They are looked for at every byte.
type Needles struct {
	first [1 << 16]bool // by the first two bytes
	by    map[[needleSize]byte]needle
}

type needle struct {
	rest []byte // that must follow the first needleSize bytes
	what string
}

// KeyNeedles makes the needles of a data key of 64 bytes: itself, in
// hexadecimal and base64, and all forms of its schedule that package xts
// keeps.
func KeyNeedles(dk []byte) (*Needles, error) {
	n := &Needles{by: map[[needleSize]byte]needle{}}
	half := len(dk) / 2
	for _, part := range []struct {
		name string
		b    []byte
	}{{"DK", dk}, {"second half of the DK", dk[half:]}} { // the first half begins as the whole does
		n.add(part.name, part.b)
		n.add(part.name+" in hexadecimal", []byte(hex.EncodeToString(part.b)))
		n.add(part.name+" in HEXADECIMAL", []byte(strings.ToUpper(hex.EncodeToString(part.b))))
		// Base64 of a longer text that holds the key somewhere looks different
		// by where its groups of three bytes begin.
		for shift := range 3 {
			for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
				whole := (len(part.b) - shift) / 3 * 3
				n.add(fmt.Sprintf("%s in %s (shift %d)", part.name, name, shift), []byte(enc.EncodeToString(part.b[shift:shift+whole])))
			}
		}
	}
	sched, err := schedule(dk)
	if err != nil {
		return nil, err
	}
	n.add("schedule", sched)
	return n, nil
}

// schedule expands dk as the product does.
func schedule(dk []byte) ([]byte, error) {
	buf := make([]byte, xts.ScheduleSize+64)
	for uintptr(unsafe.Pointer(&buf[0]))%64 != 0 {
		buf = buf[1:]
	}
	buf = buf[:xts.ScheduleSize]
	return buf, xts.Expand(buf, dk)
}

// add adds the fragments of one form, those that chance could make left out.
func (n *Needles) add(what string, form []byte) {
	for off := 0; off+needleSize <= len(form); off += needleSize {
		var rest []byte
		frag := [needleSize]byte(form[off:])
		switch {
		case kinds(frag[:]) >= enoughKinds:
		case off+longNeedleSize <= len(form) && min(kinds(frag[:]), kinds(form[off+needleSize:off+longNeedleSize])) >= 3:
			rest = form[off+needleSize : off+longNeedleSize]
		default:
			continue
		}
		if _, ok := n.by[frag]; !ok {
			n.by[frag] = needle{rest, fmt.Sprintf("%s, from byte %d", what, off)}
		}
		n.first[binary.LittleEndian.Uint16(frag[:])] = true
	}
}

// enoughKinds is how many different bytes 16 bytes must have to be a needle
// or a round key: random ones have fewer once in 10^8.
const enoughKinds = 9

// kinds counts the different bytes in b.
func kinds(b []byte) int {
	var seen [256]bool
	n := 0
	for _, v := range b {
		if !seen[v] {
			seen[v] = true
			n++
		}
	}
	return n
}

// find calls found for each needle in b.
func (n *Needles) find(b []byte, found func(off int, what string)) {
	for i := 0; i+needleSize <= len(b); i++ {
		if !n.first[uint16(b[i])|uint16(b[i+1])<<8] {
			continue
		}
		if nd, ok := n.by[[needleSize]byte(b[i:])]; ok && bytes.HasPrefix(b[i+needleSize:], nd.rest) {
			found(i, nd.what)
		}
	}
}
