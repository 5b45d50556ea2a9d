package nbdtest

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"sealdisk/blockdev"
	"sealdisk/pkg/nbd"
)

// NewDevice returns the export that clients, all of one export, are connected
// to as a Device; each call goes to the next of them. The server sees to ranges that
// overlap. Close sends DISC on all.
func NewDevice(clients ...*Client) blockdev.Device { return &device{clients: clients} }

type device struct {
	clients []*Client
	next    atomic.Uint32
	closed  atomic.Bool
}

func (d *device) any() *Client {
	return d.clients[int(d.next.Add(1)-1)%len(d.clients)]
}

// do sends a range that may be longer than a request.
func (d *device) do(cmd nbd.Command, f nbd.CommandFlags, off, length int64, data []byte, most int64) error {
	if d.closed.Load() {
		return blockdev.ErrClosed
	}
	if err := blockdev.CheckRange(off, length, d.Size()); err != nil {
		return err
	}
	for length > 0 {
		n := min(length, most)
		var part []byte
		if cmd == nbd.CmdWrite {
			part = data[:n]
		}
		call, err := d.any().Do(cmd, f, uint64(off), uint32(n), part)
		if err != nil {
			return fmt.Errorf("%v: %w", cmd, errorOf(err))
		}
		if cmd == nbd.CmdRead {
			copy(data, call.Data)
		}
		off, length = off+n, length-n
		if data != nil {
			data = data[n:]
		}
	}
	return nil
}

// errorOf is the device's error that an errno stands for.
func errorOf(err error) error {
	for errno, dev := range map[nbd.Errno]error{
		nbd.EPERM: blockdev.ErrReadOnly, nbd.ENOSPC: blockdev.ErrNoSpace, nbd.EIO: blockdev.ErrIO,
		nbd.ENOTSUP: blockdev.ErrNotSupported, nbd.ESHUTDOWN: blockdev.ErrClosed, nbd.EINVAL: blockdev.ErrOutOfRange,
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w (%w)", dev, err)
		}
	}
	return err
}

func wireFlags(f blockdev.Flags) nbd.CommandFlags {
	var w nbd.CommandFlags
	if f&blockdev.FUA != 0 {
		w |= nbd.FlagFUA
	}
	if f&blockdev.NoHole != 0 {
		w |= nbd.FlagNoHole
	}
	if f&blockdev.FastZero != 0 {
		w |= nbd.FlagFastZero
	}
	return w
}

func (d *device) Size() int64 { return int64(d.clients[0].Bytes) }

func (d *device) ReadAt(p []byte, off int64) error {
	return d.do(nbd.CmdRead, 0, off, int64(len(p)), p, nbd.MaxPayload)
}

func (d *device) WriteAt(p []byte, off int64, f blockdev.Flags) error {
	return d.do(nbd.CmdWrite, wireFlags(f&blockdev.FUA), off, int64(len(p)), p, nbd.MaxPayload)
}

func (d *device) Trim(off, length int64, f blockdev.Flags) error {
	return d.do(nbd.CmdTrim, wireFlags(f&blockdev.FUA), off, length, nil, math.MaxUint32)
}

func (d *device) WriteZeroes(off, length int64, f blockdev.Flags) error {
	return d.do(nbd.CmdWriteZeroes, wireFlags(f), off, length, nil, math.MaxUint32)
}

func (d *device) Flush() error {
	if d.closed.Load() {
		return blockdev.ErrClosed
	}
	_, err := d.any().Do(nbd.CmdFlush, 0, 0, 0, nil)
	return errorOf(err)
}

func (d *device) Cache(off, length int64) error {
	return d.do(nbd.CmdCache, 0, off, length, nil, math.MaxUint32)
}

func (d *device) Extents(dst []blockdev.Extent, off, length int64, max int) ([]blockdev.Extent, error) {
	if err := blockdev.CheckRange(off, length, d.Size()); err != nil || length == 0 {
		return dst, err
	}
	if d.closed.Load() {
		return dst, blockdev.ErrClosed
	}
	var f nbd.CommandFlags
	if max <= 1 {
		max, f = 1, nbd.FlagReqOne
	}
	call, err := d.any().Do(nbd.CmdBlockStatus, f, uint64(off), uint32(min(length, math.MaxUint32)), nil)
	if err != nil {
		return dst, errorOf(err)
	}
	for i, e := range call.Extents {
		if i == max {
			break
		}
		dst = append(dst, blockdev.Extent{Off: off, Len: int64(e.Len), Hole: e.State&nbd.StateHole != 0, Zero: e.State&nbd.StateZero != 0})
		off += int64(e.Len)
	}
	return dst, nil
}

func (d *device) Close() error {
	if d.closed.Swap(true) {
		return blockdev.ErrClosed
	}
	var errs []error
	for _, c := range d.clients {
		errs = append(errs, c.Disconnect())
	}
	return errors.Join(errs...)
}
