package kmsserver

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httputil"

	"sealdisk/pkg/api"
	"sealdisk/pkg/kms"
	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/logfield"
	"sealdisk/pkg/secmem"
)

const backupKeySize = 32 // bytes

// backup streams an encrypted backup. The end of a chunked body tells the
// client that it has all of it.
func (s *Server) backup(c *call) (any, error) {
	key, err := secmem.Lock(backupKeySize)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	q := struct {
		api.BackupRequest
		Key kms.HexInto `json:"key"`
	}{Key: kms.HexInto{Dst: key.Bytes()}}
	if err := json.Unmarshal(c.body, &q); err != nil {
		return nil, &reply{http.StatusBadRequest, api.CodeKMSJSON, "the body is not the JSON that is expected here"}
	}
	salt, err := hex.DecodeString(q.Salt)
	if err != nil || q.Key.N != backupKeySize {
		return nil, badParameter("salt and key must be hexadecimal and whole")
	}
	kdf := keystore.KDF{Salt: salt, Time: q.Time, Memory: q.Memory, Threads: q.Threads}
	if err := kdf.Check(); err != nil {
		return nil, badParameter(err.Error())
	}

	conn, err := c.takeOver()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
	if err == nil {
		body := httputil.NewChunkedWriter(conn)
		if err = s.store.Backup(body, kdf, key.Bytes()); err == nil {
			err = body.Close()
		}
	}
	if err == nil {
		_, err = io.WriteString(conn, "\r\n")
	}
	if err != nil {
		s.log.Error("backup was cut off", logfield.UID(c.peer.UID), logfield.Err(err))
		return nil, nil // the reply has begun: the client sees that its end is missing
	}
	s.audit(c)
	return nil, nil
}
