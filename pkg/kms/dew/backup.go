package dew

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// backupTime bounds a backup.
const backupTime = 5 * time.Minute

// Backup has the KMS write an encrypted backup to w. key is what the caller
// derived from the backup's passphrase as q says; it is sent from locked
// memory. On an error w holds a part of a backup at most.
func (c *Client) Backup(ctx context.Context, q api.BackupRequest, key []byte, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, backupTime)
	defer cancel()
	params, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("%w: %v", kms.ErrProtocol, err)
	}
	before := string(params[:len(params)-1]) + `,"key":"`
	const after = `"}`
	head := fmt.Sprintf("POST /sealdisk/v1/backup HTTP/1.1\r\nHost: kms\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		len(before)+hex.EncodedLen(len(key))+len(after), before)
	buf, err := secmem.Lock(len(head) + hex.EncodedLen(len(key)) + len(after))
	if err != nil {
		return err
	}
	defer buf.Destroy()
	b := buf.Bytes()
	n := copy(b, head)
	n += hex.Encode(b[n:], key)
	copy(b[n:], after)

	conn, err := c.dial(ctx)
	if err != nil {
		return unavailable(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes the calls below
	defer stop()
	if _, err := conn.Write(b); err != nil {
		return unavailable(ctx, timely(ctx, err))
	}
	rsp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: "POST"})
	if err != nil {
		return unavailable(ctx, timely(ctx, err))
	}
	defer rsp.Body.Close()
	if rsp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(rsp.Body, maxReply))
		if err != nil {
			return unavailable(ctx, timely(ctx, err))
		}
		return errorOf(rsp.StatusCode, body)
	}
	if _, err := io.Copy(w, rsp.Body); err != nil {
		return fmt.Errorf("receiving the backup: %w", timely(ctx, err))
	}
	return nil
}
