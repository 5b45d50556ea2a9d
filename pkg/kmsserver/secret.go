package kmsserver

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"sealdisk/pkg/kms"
	"sealdisk/pkg/secmem"
)

// takeOver gives the connection to a handler that must not leave keys in
// net/http's buffers. What came in through them is cleared. The connection
// ends with the reply, which says so.
func (c *call) takeOver() (net.Conn, error) {
	hj, ok := c.w.(http.Hijacker)
	if !ok {
		return nil, errors.New("the connection cannot be taken over")
	}
	conn, rw, err := hj.Hijack()
	if err != nil {
		return nil, fmt.Errorf("taking over the connection: %w", err)
	}
	kms.ClearReader(rw.Reader)
	if deadline, ok := c.ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	} else {
		err = conn.SetDeadline(time.Now().Add(shortTime))
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// sendSecret answers with the JSON that before, key in hexadecimal and after
// make. Key and reply are never anywhere but in locked memory and the socket.
func (c *call) sendSecret(before string, key []byte, after string) error {
	body := len(before) + hex.EncodedLen(len(key)) + len(after)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n", contentJSON, body)
	buf, err := secmem.Lock(len(head) + body)
	if err != nil {
		return err
	}
	defer buf.Destroy()
	b := buf.Bytes()
	n := copy(b, head)
	n += copy(b[n:], before)
	n += hex.Encode(b[n:], key)
	copy(b[n:], after)

	conn, err := c.takeOver()
	if err != nil {
		return err
	}
	_, _ = conn.Write(b) // the peer may be gone, and there is nobody else to tell
	_ = conn.Close()
	return nil
}
