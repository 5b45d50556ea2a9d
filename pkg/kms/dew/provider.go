package dew

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// Name is what disks record as the provider of their keys.
const Name = "embedded"

// maxSecretReply bounds the reply that carries a data key, in bytes.
const maxSecretReply = 16 << 10

type provider struct{ c *Client }

// New returns the Provider of the disk service at the KMS that listens on
// socket. The process's uid must be the one that this KMS takes for the
// service's.
func New(socket string) kms.Provider {
	c := NewClient(socket)
	c.principal = api.PrincipalEVS
	return &provider{c: c}
}

func (*provider) Name() string { return Name }

// DescribeKey implements kms.Provider.
func (p *provider) DescribeKey(ctx context.Context, project, key string) (kms.Key, error) {
	d, err := p.c.ShowKey(ctx, project, key)
	if err != nil {
		return kms.Key{}, fmt.Errorf("describing key %s: %w", key, err)
	}
	state, err := ParseState(d.KeyState)
	return kms.Key{ID: d.KeyID, Alias: d.KeyAlias, State: state, Default: d.DefaultKeyFlag == "1", Version: d.KeyVersion}, err
}

// NewWrapped implements kms.Provider.
func (p *provider) NewWrapped(ctx context.Context, project, key, aad string) (kms.Wrapped, error) {
	q := api.CreateDatakeyRequest{KeyID: key, DatakeyLength: strconv.Itoa(8 * kms.DKSize), AAD: aad}
	var rsp api.CreateDatakeyResponse
	if err := p.c.call(ctx, "POST", kmsPath(project, "create-datakey-without-plaintext"), q, &rsp); err != nil {
		return kms.Wrapped{}, fmt.Errorf("making a data key under key %s: %w", key, err)
	}
	b, err := hex.DecodeString(rsp.CipherText)
	if err != nil || len(b) == 0 || rsp.KeyID == "" {
		return kms.Wrapped{}, fmt.Errorf("making a data key under key %s: %w: no wrapped key in its reply", key, kms.ErrProtocol)
	}
	return kms.Wrapped{KeyID: rsp.KeyID, KeyVersion: rsp.KeyVersion, Ciphertext: b}, nil
}

// Unwrap implements kms.Provider. It does not go through net/http's client,
// whose buffers would keep the reply: the reply is read into locked memory
// and decoded from there into dst.
func (p *provider) Unwrap(ctx context.Context, project string, w kms.Wrapped, aad string, dst []byte) error {
	if len(dst) != kms.DKSize {
		return fmt.Errorf("unwrapping: %w: room for %d bytes, a data key has %d", kms.ErrProtocol, len(dst), kms.DKSize)
	}
	err := p.unwrap(ctx, project, w, aad, dst)
	if err != nil {
		clear(dst)
		return fmt.Errorf("unwrapping the data key with key %s: %w", w.KeyID, err)
	}
	return nil
}

func (p *provider) unwrap(ctx context.Context, project string, w kms.Wrapped, aad string, dst []byte) error {
	body, err := json.Marshal(api.DecryptDatakeyRequest{KeyID: w.KeyID, CipherText: hex.EncodeToString(w.Ciphertext),
		CipherLength: strconv.Itoa(len(dst)), AAD: aad})
	if err != nil {
		return fmt.Errorf("%w: %v", kms.ErrProtocol, err)
	}
	q, err := p.c.request(ctx, "POST", kmsPath(project, "decrypt-datakey"), body)
	if err != nil {
		return err
	}
	q.Close = true
	buf, err := secmem.Lock(maxSecretReply)
	if err != nil {
		return err
	}
	defer buf.Destroy()
	reply, status, err := p.c.exchange(ctx, q, buf.Bytes())
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return errorOf(status, reply)
	}
	rsp := struct {
		DataKey kms.HexInto `json:"data_key"`
	}{kms.HexInto{Dst: dst}}
	if err := json.Unmarshal(reply, &rsp); err != nil || rsp.DataKey.N != len(dst) {
		// The decoder's words could quote the reply.
		return fmt.Errorf("%w: no data key of %d bytes in its reply", kms.ErrProtocol, len(dst))
	}
	return nil
}

// exchange sends q on a connection of its own and reads the reply's body into
// room. Every buffer that the reply passes through is cleared.
func (c *Client) exchange(ctx context.Context, q *http.Request, room []byte) (body []byte, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, defaultTime)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, 0, unavailable(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes the calls below
	defer stop()
	if err := q.Write(conn); err != nil {
		return nil, 0, unavailable(ctx, timely(ctx, err))
	}
	br := bufio.NewReader(conn)
	defer kms.ClearReader(br)
	rsp, err := http.ReadResponse(br, q)
	if err != nil {
		return nil, 0, unavailable(ctx, timely(ctx, err))
	}
	defer rsp.Body.Close()
	for n := 0; n < len(room); {
		m, err := rsp.Body.Read(room[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return room[:n], rsp.StatusCode, nil
		}
		if err != nil {
			return nil, 0, unavailable(ctx, timely(ctx, err))
		}
	}
	return nil, 0, fmt.Errorf("%w: its reply is longer than %d bytes", kms.ErrProtocol, len(room)-1)
}

// timely names the end of ctx as the cause, where it is.
func timely(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
