package nbdserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealdisk/pkg/nbd"
	"sealdisk/pkg/nbdserver/nbdtest"
)

// told is a short form of replies: "INFO:0 ACK".
func told(all []nbdtest.Reply) string {
	var s []string
	for _, r := range all {
		switch r.Type {
		case nbd.RepInfo:
			s = append(s, fmt.Sprintf("INFO:%v", nbd.Info(be.Uint16(r.Data))))
		case nbd.RepServer, nbd.RepMetaContext:
			s = append(s, fmt.Sprintf("%v:%d:%s", r.Type, be.Uint32(r.Data), r.Data[4:]))
		default:
			s = append(s, r.Type.String())
		}
	}
	return strings.Join(s, " ")
}

func TestOptions(t *testing.T) {
	long := strings.Repeat("n", 5000)
	type step struct {
		opt  nbd.Option
		data []byte
		want string
	}
	structured := step{nbd.OptStructuredReply, nil, "ACK"}
	set := step{nbd.OptSetMetaContext, nbdtest.MetaData("disk", "base:allocation"), "META_CONTEXT:1:base:allocation ACK"}
	for name, steps := range map[string][]step{
		"list":                    {{nbd.OptList, nil, "SERVER:4:disk SERVER:5:other ACK"}},
		"list with data":          {{nbd.OptList, []byte("x"), "ERR_INVALID"}},
		"unknown option":          {{99, []byte("anything"), "ERR_UNSUP"}},
		"withdrawn option":        {{nbd.OptPeekExport, nil, "ERR_UNSUP"}},
		"extended headers":        {{nbd.OptExtendedHeaders, nil, "ERR_UNSUP"}},
		"STARTTLS":                {{nbd.OptStartTLS, nil, "ERR_UNSUP"}},
		"STARTTLS with data":      {{nbd.OptStartTLS, []byte{1}, "ERR_INVALID"}},
		"structured":              {structured},
		"structured with data":    {{nbd.OptStructuredReply, []byte{1}, "ERR_INVALID"}, {nbd.OptListMetaContext, nbdtest.MetaData("disk"), "ERR_INVALID"}},
		"info":                    {{nbd.OptInfo, nbdtest.InfoData("disk"), "INFO:EXPORT ACK"}},
		"info of everything":      {{nbd.OptInfo, nbdtest.InfoData("disk", 1, 2, 3, 0, 77, 3), "INFO:EXPORT INFO:NAME INFO:DESCRIPTION INFO:BLOCK_SIZE ACK"}},
		"info of the default":     {{nbd.OptInfo, nbdtest.InfoData(""), "INFO:EXPORT ACK"}},
		"info of unknown":         {{nbd.OptInfo, nbdtest.InfoData("nothing"), "ERR_UNKNOWN"}},
		"info of forbidden":       {{nbd.OptInfo, nbdtest.InfoData("secret"), "ERR_UNKNOWN"}},
		"info of incomplete":      {{nbd.OptInfo, nbdtest.InfoData("broken"), "ERR_UNKNOWN"}},
		"go to unknown":           {{nbd.OptGo, nbdtest.InfoData("nothing"), "ERR_UNKNOWN"}},
		"info with a long name":   {{nbd.OptInfo, nbdtest.InfoData(long), "ERR_TOO_BIG"}},
		"info without data":       {{nbd.OptInfo, nil, "ERR_INVALID"}},
		"info cut short":          {{nbd.OptInfo, nbdtest.InfoData("disk", 1)[:9], "ERR_INVALID"}},
		"info with a wrong count": {{nbd.OptInfo, append(nbdtest.InfoData("disk"), 0), "ERR_INVALID"}},
		"name longer than data":   {{nbd.OptGo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, "ERR_INVALID"}},
		"contexts before structured": {
			{nbd.OptListMetaContext, nbdtest.MetaData("disk"), "ERR_INVALID"},
			{nbd.OptSetMetaContext, nbdtest.MetaData("disk", "base:allocation"), "ERR_INVALID"},
		},
		"contexts": {
			structured,
			{nbd.OptListMetaContext, nbdtest.MetaData("disk"), "META_CONTEXT:0:base:allocation ACK"},
			{nbd.OptListMetaContext, nbdtest.MetaData("disk", "base:"), "META_CONTEXT:0:base:allocation ACK"},
			{nbd.OptListMetaContext, nbdtest.MetaData("disk", "x:y", "base:allocation", "base:"), "META_CONTEXT:0:base:allocation ACK"},
			{nbd.OptListMetaContext, nbdtest.MetaData("disk", "x:y"), "ACK"},
			{nbd.OptListMetaContext, nbdtest.MetaData("nothing"), "ERR_UNKNOWN"},
			{nbd.OptListMetaContext, nbdtest.MetaData("disk", long), "ERR_TOO_BIG"},
			{nbd.OptListMetaContext, nbdtest.MetaData("disk", "q")[:14], "ERR_INVALID"},
			{nbd.OptListMetaContext, append(nbdtest.MetaData("disk"), 7), "ERR_INVALID"},
			{nbd.OptListMetaContext, be.AppendUint32(nbdtest.String("disk"), 1<<31), "ERR_INVALID"},
			{nbd.OptListMetaContext, nbdtest.String("disk"), "ERR_INVALID"},
			{nbd.OptListMetaContext, nil, "ERR_INVALID"},
			{nbd.OptSetMetaContext, nbdtest.MetaData("disk"), "ACK"},
			{nbd.OptSetMetaContext, nbdtest.MetaData("disk", "base:"), "ACK"},
			set,
		},
		"oversized option": {
			{nbd.OptGo, make([]byte, maxOptionData+1), "ERR_TOO_BIG"},
			{98, make([]byte, maxDrain), "ERR_UNSUP"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dev, _ := ram(mib)
			r := newRig(t, Config{}, dev)
			other, secret := newExport("other", dev), newExport("secret", dev)
			r.table.add(other)
			r.table.add(secret)
			r.table.denied["secret"] = true
			r.table.exports["broken"] = &Export{Name: "broken", Device: dev}
			raw := r.greet()
			for _, s := range steps {
				all, err := raw.Ask(s.opt, s.data)
				if err != nil {
					t.Fatal(err)
				}
				if got := told(all); got != s.want {
					t.Errorf("%v %.40q: %s, want %s", s.opt, s.data, got, s.want)
				}
			}
			// Whatever came before, the next option parses.
			all, err := raw.Ask(nbd.OptGo, nbdtest.InfoData("disk"))
			if err != nil || told(all) != "INFO:EXPORT ACK" {
				t.Errorf("GO afterwards: %s, %v", told(all), err)
			}
		})
	}
}

func TestInfoContents(t *testing.T) {
	dev, _ := ram(12 * mib)
	r := newRig(t, Config{}, dev)
	r.export.ReadOnly = true
	raw := r.greet()
	all, err := raw.Ask(nbd.OptInfo, nbdtest.InfoData("", nbd.InfoName, nbd.InfoDescription, nbd.InfoBlockSize))
	if err != nil || len(all) != 5 {
		t.Fatal(told(all), err)
	}
	ro := nbd.FlagHasFlags | nbd.FlagReadOnly | nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagCanMultiConn | nbd.FlagSendCache
	for i, want := range [][]byte{
		nbd.AppendInfoExport(nil, 12*mib, ro),
		append([]byte{0, 1}, "disk"...),
		append([]byte{0, 2}, "a test disk"...),
		nbd.AppendInfoBlockSize(nil, 1, 4096, 32<<20),
	} {
		if !bytes.Equal(all[i].Data, want) {
			t.Errorf("information %d: % x, want % x", i, all[i].Data, want)
		}
	}
	writable := *r.export
	writable.ReadOnly = false
	r.table.mu.Lock()
	r.table.exports["disk"] = &writable
	r.table.mu.Unlock()
	if _, err := raw.Ask(nbd.OptStructuredReply, nil); err != nil {
		t.Fatal(err)
	}
	all, err = raw.Ask(nbd.OptInfo, nbdtest.InfoData("disk"))
	rw := ro&^nbd.FlagReadOnly | nbd.FlagSendTrim | nbd.FlagSendWriteZeroes | nbd.FlagSendFastZero | nbd.FlagSendDF
	if want := nbd.AppendInfoExport(nil, 12*mib, rw); err != nil || !bytes.Equal(all[0].Data, want) {
		t.Errorf("% x, want % x (%v)", all[0].Data, want, err)
	}
}

func TestExportName(t *testing.T) {
	for _, noZeroes := range []bool{false, true} {
		t.Run(fmt.Sprintf("no zeroes %v", noZeroes), func(t *testing.T) {
			dev, _ := ram(mib)
			r := newRig(t, Config{}, dev)
			flags := nbd.ClientFlags(0) // not even fixed newstyle
			if noZeroes {
				flags = nbd.ClientNoZeroes
			}
			raw, err := nbdtest.Greet(r.dial(), flags)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := raw.Write(nbdtest.Option(nbd.OptExportName, []byte("disk"))); err != nil {
				t.Fatal(err)
			}
			n := 10
			if !noZeroes {
				n += 124
			}
			b, err := raw.Bytes(n)
			if err != nil || be.Uint64(b) != mib || !bytes.Equal(b[10:], make([]byte, n-10)) {
				t.Fatalf("% x, %v", b, err)
			}
			c := nbdtest.NewClient(raw.UnixConn, be.Uint64(b), nbd.TransmissionFlags(be.Uint16(b[8:])), nbdtest.Features{})
			if c.Flags&nbd.FlagSendDF != 0 {
				t.Error("DF offered without structured replies")
			}
			if _, err := c.Do(nbd.CmdRead, 0, 0, 4096, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHandshakeEnds: what leaves nothing but to close.
func TestHandshakeEnds(t *testing.T) {
	hello := be.AppendUint32(nil, uint32(nbd.ClientFixedNewstyle|nbd.ClientNoZeroes))
	with := func(parts ...[]byte) []byte { return bytes.Join(append([][]byte{hello}, parts...), nil) }
	huge := nbdtest.Option(nbd.OptGo, nil)
	be.PutUint32(huge[12:], 0xffffffff)
	badMagic := nbdtest.Option(nbd.OptGo, nil)
	badMagic[0]++
	many := bytes.Repeat(nbdtest.Option(nbd.OptStructuredReply, nil), maxOptions+1)
	for name, c := range map[string]struct {
		send    []byte
		replies string
	}{
		"unknown client flag":         {append(be.AppendUint32(nil, 1<<7|3), nbdtest.Option(nbd.OptList, nil)...), ""},
		"option with a wrong magic":   {with(badMagic), ""},
		"option of 4 GiB":             {with(huge), "ERR_TOO_BIG"},
		"EXPORT_NAME of unknown":      {with(nbdtest.Option(nbd.OptExportName, []byte("nothing"))), ""},
		"EXPORT_NAME of 5000 bytes":   {with(nbdtest.Option(nbd.OptExportName, make([]byte, 5000))), ""},
		"EXPORT_NAME of 100000 bytes": {with(nbdtest.Option(nbd.OptExportName, make([]byte, 100000))), ""},
		"33 options":                  {with(many), strings.TrimSpace(strings.Repeat("ACK ", maxOptions))},
		"abort":                       {with(nbdtest.Option(nbd.OptAbort, nil)), "ACK"},
		"newstyle but not fixed":      {append(make([]byte, 4), nbdtest.Option(nbd.OptList, nil)...), ""},
	} {
		t.Run(name, func(t *testing.T) {
			dev, _ := ram(mib)
			r := newRig(t, Config{}, dev)
			conn := r.dial()
			raw := &nbdtest.Raw{UnixConn: conn}
			if _, err := raw.Bytes(nbd.NewstyleHeaderSize); err != nil {
				t.Fatal(err)
			}
			go conn.Write(c.send) // the server may close while we still send
			var all []nbdtest.Reply
			for {
				rep, err := raw.Reply()
				if err != nil {
					if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("the server did not close: %v", err)
					}
					break
				}
				all = append(all, rep)
			}
			if got := told(all); got != c.replies {
				t.Errorf("replies %q, want %q", got, c.replies)
			}
		})
	}
}

// TestHandshakeDeadline: silence, at whichever point, and one byte at a time.
func TestHandshakeDeadline(t *testing.T) {
	full := append(be.AppendUint32(nil, 3), nbdtest.Option(nbd.OptGo, nbdtest.InfoData("disk"))...)
	dev, _ := ram(mib)
	r := newRig(t, Config{HandshakeTimeout: 20 * time.Millisecond, StallTimeout: time.Hour}, dev)
	for n := range full {
		conn := r.dial()
		if _, err := conn.Write(full[:n]); err != nil {
			t.Fatal(err)
		}
		raw := &nbdtest.Raw{UnixConn: conn}
		if _, err := raw.Bytes(nbd.NewstyleHeaderSize); err != nil {
			t.Fatal(err)
		}
		if b, err := raw.Bytes(1); !errors.Is(err, io.EOF) {
			t.Errorf("after %d bytes of handshake: % x, %v", n, b, err)
		}
	}
	// Slowly is not silently, but has the same deadline.
	conn := r.dial()
	slow := be.AppendUint32(nil, 3)
	slow = append(slow, nbdtest.Option(99, make([]byte, maxDrain))...)
	for i := range slow {
		if _, err := conn.Write(slow[i : i+1]); err != nil {
			return
		}
	}
	t.Error("a client that sends byte after byte has all the time it wants")
}

// TestHalfOpen: connections that shake hands are few; who comes later waits, and
// is served once the others are done.
func TestHalfOpen(t *testing.T) {
	dev, _ := ram(mib)
	r := newRig(t, Config{MaxHandshakes: 2}, dev)
	first, second := r.greet(), r.greet()
	accepted := make(chan struct{})
	third := make(chan error, 1)
	go func() {
		c, err := r.l.Dial() // not accepted before there is room
		close(accepted)
		if err == nil {
			_, err = nbdtest.Connect(c, "disk", nbdtest.Features{})
			c.Close()
		}
		third <- err
	}()
	for range maxOptions - 1 { // time enough for a server that would
		if _, err := first.Ask(nbd.OptList, nil); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-accepted:
		t.Error("a third handshake began")
	default:
	}
	if all, err := first.Ask(nbd.OptGo, nbdtest.InfoData("disk")); err != nil || told(all) != "INFO:EXPORT ACK" {
		t.Fatal(told(all), err)
	}
	if err := <-third; err != nil {
		t.Errorf("third: %v", err)
	}
	second.Close()
}

// TestTooManyConnections: the cap closes what comes on top, and frees up again.
func TestTooManyConnections(t *testing.T) {
	dev, _ := ram(mib)
	r := newRig(t, Config{MaxConnections: 2}, dev)
	a, b := r.connect(false), r.connect(false)
	raw := &nbdtest.Raw{UnixConn: r.dial()}
	if _, err := raw.Bytes(1); !errors.Is(err, io.EOF) {
		t.Errorf("a third connection: %v", err)
	}
	if err := a.Disconnect(); err != nil {
		t.Fatal(err)
	}
	r.waitConnections(1)
	c := r.connect(false)
	for _, cl := range []*nbdtest.Client{b, c} {
		if _, err := cl.Do(nbd.CmdRead, 0, 0, 512, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestTooManyConnectionsOfADisk: one disk's clients can't take all there are.
func TestTooManyConnectionsOfADisk(t *testing.T) {
	dev, _ := ram(mib)
	r := newRig(t, Config{MaxDiskConnections: 2}, dev)
	r.table.add(newExport("other", dev))
	r.connect(false)
	r.connect(true)
	for name, want := range map[string]string{"disk": "ERR_POLICY", "other": "INFO:EXPORT ACK"} {
		if all, err := r.greet().Ask(nbd.OptGo, nbdtest.InfoData(name)); err != nil || told(all) != want {
			t.Errorf("%s: %s, %v, want %s", name, told(all), err, want)
		}
	}
}

// TestPeer: Exports is told who asks.
func TestPeer(t *testing.T) {
	dev, _ := ram(mib)
	r := newRig(t, Config{}, dev)
	r.connect(false)
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	p := r.table.peers[0]
	if !p.Local || p.UID != uint32(syscall.Getuid()) || p.PID != int32(syscall.Getpid()) || p.String() == "" {
		t.Errorf("peer %+v", p)
	}
}

// TestShutdownDuringHandshake ends those that have not chosen yet.
func TestShutdownDuringHandshake(t *testing.T) {
	dev, _ := ram(mib)
	r := newRig(t, Config{}, dev)
	raw := r.greet()
	if err := r.srv.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Bytes(1); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if err := <-r.served; !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	if err := r.srv.Serve(nbdtest.NewListener(), r.table); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve afterwards: %v", err)
	}
}
