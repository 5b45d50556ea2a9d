package secmem

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// However a value of this package is printed, its contents do not show.
func TestRedaction(t *testing.T) {
	const secret = "correct horse battery"
	r, err := Create(PageSize, Options{ForceLocked: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Destroy()
	f, err := r.Descriptor()
	if err != nil {
		t.Fatal(err)
	}
	w, err := OpenChild(f, PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	copy(w.Bytes(), secret)
	b, err := Lock(64)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Destroy()
	copy(b.Bytes(), secret)
	if err := r.MapReadOnly(); err != nil {
		t.Fatal(err)
	}
	var nilRegion *Region
	for _, v := range []any{r, w, b, nilRegion, struct{ Pages *Region }{r}} {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%T: %v", v, err)
		}
		out.Write(j)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		var zapped bytes.Buffer
		zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&zapped), zap.InfoLevel)).
			Info("x", zap.Any("v", v))
		out.Write(zapped.Bytes())
		for _, leak := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret[:4]))[1:10], "base"} {
			if strings.Contains(out.String(), leak) {
				t.Errorf("%T shows %q:\n%s", v, leak, out.String())
			}
		}
		if !strings.Contains(out.String(), "redacted") {
			t.Errorf("%T: %s", v, out.String())
		}
	}
}
