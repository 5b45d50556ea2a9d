package keyfetch

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"sealdisk/blockdev/luks2"
	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
	"sealdisk/xts"
)

// PagesSize is the size in bytes of the key pages that Attach fills.
const PagesSize = xts.ScheduleSize

// ChildOptions configure Run.
type ChildOptions struct {
	// RequireLocked refuses to hold a key while not all memory is locked.
	RequireLocked bool
	// MaxTimeout bounds the time the engine may ask for; 0 is DefaultTimeout.
	MaxTimeout time.Duration
}

// Run is the child: it answers the one request that comes over conn, using
// provider, and returns; the process is to exit then. For attach, pages is the
// descriptor of the key pages, else nil. Run closes both.
//
// It hardens the process and locks its memory before it reads anything. A failure of the
// request is the answer, and not returned; a conversation that breaks off ends
// the work at once.
func Run(conn *os.File, pages *os.File, provider kms.Provider, opt ChildOptions) error {
	if pages != nil {
		defer pages.Close()
	}
	if err := secmem.HardenProcess(); err != nil {
		return errors.Join(err, conn.Close())
	}
	return answer(conn, pages, provider, opt, secmem.LockAll())
}

// answer is Run in a hardened process; lockErr says why its memory is not locked.
func answer(conn, pages *os.File, provider kms.Provider, opt ChildOptions, lockErr error) error {
	c, err := connOf(conn)
	if err != nil {
		return err
	}
	defer c.Close()
	limit := opt.MaxTimeout
	if limit <= 0 {
		limit = DefaultTimeout
	}
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	b, err := receive(c)
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	answer := response{Version: protocolVersion, Locked: lockErr == nil}
	q, err := parseRequest(b)
	switch {
	case err != nil:
	case lockErr != nil && opt.RequireLocked:
		err = lockErr
	default:
		limit = min(limit, time.Duration(q.TimeoutMS)*time.Millisecond)
		answer.Header, err = serve(c, q, pages, provider, limit)
	}
	if err != nil {
		answer.Header, answer.Error = nil, toWire(err)
	}
	return send(c, &answer)
}

// serve does what q asks, as long as the engine is there and time is left.
func serve(c net.Conn, q *request, pages *os.File, provider kms.Provider, limit time.Duration) (*luks2.Header, error) {
	deadline := time.Now().Add(limit)
	if err := c.SetDeadline(deadline.Add(time.Second)); err != nil { // the answer itself may come a little later
		return nil, err
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	// The engine says nothing more, so the end of this read is its end.
	go func() {
		receive(c)
		cancel()
	}()
	w := &worker{provider: provider}
	var h *luks2.Header
	var err error
	switch q.Op {
	case opCreate:
		h, err = w.create(ctx, q.Header, q.Key)
	case opAttach:
		err = w.attach(ctx, q.Header, pages)
	case opReseal:
		h, err = w.reseal(ctx, q.Header, q.Next)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && toWire(err).Code == codeInternal {
		err = fmt.Errorf("%w of %v: %w: %w", ErrTimeout, limit, kms.ErrUnavailable, err)
	}
	return h, err
}

// worker holds what one request needs.
type worker struct {
	provider kms.Provider
}

func (w *worker) create(ctx context.Context, h *luks2.Header, key string) (*luks2.Header, error) {
	if key == "" {
		key = api.DefaultKeyAlias
	}
	sealed := *h
	t := &sealed.Token
	t.AADScheme = luks2.AADScheme
	t.Generation = max(t.Generation, 1)
	var k kms.Key
	err := kms.Retry(ctx, func() (err error) {
		k, err = w.provider.DescribeKey(ctx, t.Project, key)
		return err
	})
	if err == nil {
		err = usable(k)
	}
	if err != nil {
		return nil, err
	}
	var wrapped kms.Wrapped
	err = kms.Retry(ctx, func() (err error) {
		wrapped, err = w.provider.NewWrapped(ctx, t.Project, k.ID, t.AAD())
		return err
	})
	if err != nil {
		return nil, err
	}
	if wrapped.KeyID != k.ID {
		return nil, fmt.Errorf("%w: a data key was asked for under another key than it came under", kms.ErrProtocol)
	}
	t.Provider, t.KeyID, t.KeyVersion, t.WrappedDK = w.provider.Name(), wrapped.KeyID, wrapped.KeyVersion, wrapped.Ciphertext
	first, err := w.unwrap(ctx, t, 0)
	if err != nil {
		return nil, err
	}
	defer first.Destroy()
	if err := sealed.Seal(first.Bytes()); err != nil {
		return nil, err
	}
	if err := w.again(ctx, &sealed, first.Bytes()); err != nil {
		return nil, err
	}
	return &sealed, nil
}

// again unwraps the DK of h, as it will be stored, a second time, as attaching
// will, and compares it with dk: a disk whose key can't be had again must never
// become available.
func (w *worker) again(ctx context.Context, h *luks2.Header, dk []byte) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	var stored luks2.Header
	if err := json.Unmarshal(b, &stored); err != nil {
		return err
	}
	// What the first call left alone and what this one leaves alone must not
	// look equal.
	second, err := w.unwrap(ctx, &stored.Token, 0xff)
	if err != nil {
		return fmt.Errorf("second unwrapping, on trial: %w", err)
	}
	defer second.Destroy()
	if subtle.ConstantTimeCompare(dk, second.Bytes()) != 1 {
		return fmt.Errorf("%w: unwrapping twice gave two different keys", ErrBadKey)
	}
	return stored.Verify(second.Bytes())
}

func (w *worker) attach(ctx context.Context, h *luks2.Header, pages *os.File) error {
	if pages == nil {
		return fmt.Errorf("%w: no key pages", errMessage)
	}
	dk, err := w.verified(ctx, h)
	if err != nil {
		return err
	}
	defer dk.Destroy()
	out, err := secmem.OpenChild(pages, PagesSize)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := ctx.Err(); err != nil { // given up meanwhile: leave the pages empty
		return err
	}
	if err := xts.Expand(out.Bytes(), dk.Bytes()); err != nil {
		clear(out.Bytes())
		return fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	return nil
}

func (w *worker) reseal(ctx context.Context, old, next *luks2.Header) (*luks2.Header, error) {
	if err := mayFollow(old, next); err != nil {
		return nil, err
	}
	dk, err := w.verified(ctx, old)
	if err != nil {
		return nil, err
	}
	defer dk.Destroy()
	sealed := *next
	if err := sealed.Seal(dk.Bytes()); err != nil {
		return nil, err
	}
	return &sealed, nil
}

// verified returns the DK of h once h's digest and MAC are checked with it.
func (w *worker) verified(ctx context.Context, h *luks2.Header) (*secmem.Buffer, error) {
	if name := w.provider.Name(); h.Token.Provider != name {
		return nil, fmt.Errorf("%w: the disk's key is kept by %q, this is %q", kms.ErrBinding, h.Token.Provider, name)
	}
	dk, err := w.unwrap(ctx, &h.Token, 0)
	if err != nil {
		return nil, err
	}
	if err := h.Verify(dk.Bytes()); err != nil {
		return nil, errors.Join(err, dk.Destroy())
	}
	return dk, nil
}

// unwrap returns the DK of t in locked memory, which held fill before.
func (w *worker) unwrap(ctx context.Context, t *luks2.Token, fill byte) (*secmem.Buffer, error) {
	dk, err := secmem.Lock(kms.DKSize)
	if err != nil {
		return nil, err
	}
	wrapped := kms.Wrapped{KeyID: t.KeyID, KeyVersion: t.KeyVersion, Ciphertext: t.WrappedDK}
	err = kms.Retry(ctx, func() error {
		for i := range dk.Bytes() {
			dk.Bytes()[i] = fill
		}
		return w.provider.Unwrap(ctx, t.Project, wrapped, t.AAD(), dk.Bytes())
	})
	if err == nil {
		err = plausible(dk.Bytes())
	}
	if err != nil {
		return nil, errors.Join(err, dk.Destroy())
	}
	return dk, nil
}

// plausible refuses what no data key is.
func plausible(dk []byte) error {
	half := len(dk) / 2
	if subtle.ConstantTimeCompare(dk[:half], dk[half:]) == 1 {
		return fmt.Errorf("%w: its two halves are equal", ErrBadKey)
	}
	var zeros [kms.DKSize / 2]byte
	if subtle.ConstantTimeCompare(dk[:half], zeros[:])|subtle.ConstantTimeCompare(dk[half:], zeros[:]) == 1 {
		return fmt.Errorf("%w: half of it is zero", ErrBadKey)
	}
	return nil
}

// usable returns why a new disk can't be made under k.
func usable(k kms.Key) error {
	switch k.State {
	case kms.StateEnabled:
		return nil
	case kms.StateDisabled:
		return kms.ErrDisabled
	case kms.StatePendingActivation, kms.StatePendingImport:
		return fmt.Errorf("%w: it has no material yet", kms.ErrDisabled)
	case kms.StatePendingDeletion:
		return kms.ErrPendingDeletion
	case kms.StateFrozen:
		return kms.ErrFrozen
	}
	return fmt.Errorf("%w: unknown key state %d", kms.ErrProtocol, k.State)
}

// mayFollow returns luks2.ErrInvalid unless next is a header that old may
// become without changing key, place or meaning of the data.
func mayFollow(old, next *luks2.Header) error {
	if next.Token.Generation < old.Token.Generation {
		return fmt.Errorf("%w: its generation is lower than before", luks2.ErrInvalid)
	}
	same := *next
	same.Label, same.SeqID, same.DataSize, same.Requirements, same.Kept = old.Label, old.SeqID, old.DataSize, old.Requirements, old.Kept
	same.Token.Generation = old.Token.Generation
	if diff := difference(old, &same); diff != "" {
		return fmt.Errorf("%w: the %s can't change", luks2.ErrInvalid, diff)
	}
	return nil
}
