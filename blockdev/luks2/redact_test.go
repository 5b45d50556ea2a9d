package luks2

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"
)

func TestWrappedKeyIsKeptOutOfWordsAndLogs(t *testing.T) {
	h := sealed(t, newHeader())
	h.Token.WrappedDK = []byte("Wr4pped!")
	w := h.Token.WrappedDK
	secrets := []string{string(w), hex.EncodeToString(w), strings.ToUpper(hex.EncodeToString(w)), base64.StdEncoding.EncodeToString(w), fmt.Sprint(w), fmt.Sprintf("%#v", w)}
	said := map[string]string{}
	for _, v := range []any{h, *h, h.Token, &h.Token, []Token{h.Token}, struct{ T Token }{h.Token}, map[string]*Header{"h": h}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			said[fmt.Sprintf("%T in %s", v, verb)] = fmt.Sprintf(verb, v)
		}
	}
	for _, v := range []fmt.Stringer{h, h.Token} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			if got := fmt.Sprintf(verb, v); got != v.String() {
				t.Errorf("%T in %s: %s", v, verb, got)
			}
		}
	}
	for name, m := range map[string]zapcore.ObjectMarshaler{"header": h, "token": h.Token} {
		enc := zapcore.NewJSONEncoder(zapcore.EncoderConfig{})
		if err := m.MarshalLogObject(enc); err != nil {
			t.Fatal(err)
		}
		buf, err := enc.EncodeEntry(zapcore.Entry{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if said["zap "+name] = buf.String(); !strings.Contains(said["zap "+name], h.Token.KeyID) {
			t.Errorf("zap %s lacks the key's id: %s", name, buf)
		}
	}
	said["error"] = fmt.Sprint(h.Verify(testDK(1)))
	for where, s := range said {
		for _, secret := range secrets {
			if strings.Contains(s, secret) {
				t.Errorf("%s shows the wrapped key: %s", where, s)
			}
		}
	}
	if s := h.String(); !strings.Contains(s, h.UUID) || !strings.Contains(s, "redacted") {
		t.Errorf("String says too little: %s", s)
	}
	if text, err := json.Marshal(h); err != nil || !strings.Contains(string(text), base64.StdEncoding.EncodeToString(w)) {
		t.Errorf("JSON lost the wrapped key: %s, %v", text, err)
	}
}
