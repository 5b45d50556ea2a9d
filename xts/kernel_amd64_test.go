//go:build linux && !purego

package xts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sealdisk/xts/registertest"
)

// What the kernel says of this CPU and what Tiers says agree. A machine that
// can't run AES-NI can't test this package.
func TestTiersOfThisCPU(t *testing.T) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^flags\s*:.*$`).FindString(string(info))
	flags := strings.Fields(line)
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(flags, n) })
	}
	want := []string{"generic"}
	if !has("aes", "pclmulqdq", "ssse3") {
		t.Fatalf("this machine has no AES-NI, so most of the package goes untested: run the tests on one that has (%s)", line)
	}
	want = append([]string{"aesni"}, want...)
	if has("avx2", "vaes", "vpclmulqdq") {
		want = append([]string{"vaes"}, want...)
		if has("avx512f", "avx512bw") {
			want = append([]string{"vaes512"}, want...)
		}
	}
	if got := Tiers(); !slices.Equal(got, want) {
		t.Errorf("Tiers() = %q, this CPU has %q", got, want)
	}
}

// kernelCalls are calls of every assembly function of a tier, on data and keys that
// leave no register zero by chance.
func kernelCalls(tb testing.TB, name string) map[string]func() {
	sched := storage()
	if err := Expand(sched, randomBytes(random(60), 64)); err != nil {
		tb.Fatal(err)
	}
	s, data := view(sched), randomBytes(random(61), 4096)
	var ts [tweakBatch]tweak
	for i := range ts {
		ts[i] = loadTweak((*[blockSize]byte)(data[16*i:]))
	}
	enc, dec, tw, rounds, p := &s.enc[0], &s.dec[0], &s.tweak[0], int(s.rounds), &data[0]
	switch name {
	case "vaes512":
		return map[string]func(){
			"encryptVAES512": func() { encryptVAES512(enc, rounds, &ts[0], p, p, 1, 1, 8) },
			"decryptVAES512": func() { decryptVAES512(dec, rounds, &ts[0], p, p, 1, 1, 8) },
		}
	case "vaes":
		return map[string]func(){
			"encryptVAES": func() { encryptVAES(enc, rounds, &ts[0], p, p, 1, 2, 16) },
			"decryptVAES": func() { decryptVAES(dec, rounds, &ts[0], p, p, 1, 2, 16) },
		}
	case "aesni":
		return map[string]func(){
			"encryptAESNI":      func() { encryptAESNI(enc, rounds, &ts[0], p, p, 1, 4, 32) },
			"decryptAESNI":      func() { decryptAESNI(dec, rounds, &ts[0], p, p, 1, 4, 32) },
			"encryptBlockAESNI": func() { encryptBlockAESNI(enc, rounds, &ts[0], p, p) },
			"decryptBlockAESNI": func() { decryptBlockAESNI(dec, rounds, &ts[0], p, p) },
			"tweaksAESNI":       func() { tweaksAESNI(tw, rounds, &ts, 16) },
		}
	}
	return nil
}

// Nothing is left in vector registers when a call returns.
func TestRegistersAreCleared(t *testing.T) {
	for _, tier := range Tiers() {
		for name, call := range kernelCalls(t, tier) {
			var x [16][16]byte
			call()
			registertest.XMM(&x)
			if x != [16][16]byte{} {
				t.Errorf("%s leaves %x in X0…X15", name, x)
			}
			if tier == "vaes" || tier == "vaes512" {
				var y [16][32]byte
				call()
				registertest.YMM(&y)
				if y != [16][32]byte{} {
					t.Errorf("%s leaves %x in Y0…Y15", name, y)
				}
			}
			if tier == "vaes512" {
				var z [32][64]byte
				call()
				registertest.ZMM(&z)
				if z != [32][64]byte{} {
					t.Errorf("%s leaves %x in Z0…Z31", name, z)
				}
			}
		}
	}
}

// Every instruction that reads a round key adds it to a block or does a round
// with it: no register ever holds one. AX and BX point to keys, in all functions of
// these files.
func TestRoundKeysAreOnlyMemoryOperands(t *testing.T) {
	fromKeys := regexp.MustCompile(`\t([A-Z0-9]+)\t(.*\((?:AX|BX)\).*)$`)
	add := regexp.MustCompile(`^VPTERNLOGQ \$150, \(AX\), Z(1[6-9]|2[0-3]), Z[0-7]$`) // data + tweaks + key
	good := regexp.MustCompile(`^V?(PXOR|AES(ENC|DEC)(LAST)?) \d*\([AB]X\), ([XYZ]\d+)(, ([XYZ]\d+))?$`)
	for file, atLeast := range map[string]int{"vaes512_amd64.s": 2 * 15 * 8, "vaes_amd64.s": 2 * 15 * 8, "aesni_amd64.s": 2 * 15 * 8} {
		n := 0
		for line := range strings.Lines(assembled(t, file)) {
			m := fromKeys.FindStringSubmatch(strings.TrimRight(line, "\n"))
			if m == nil || m[1] == "LEAQ" {
				continue
			}
			n++
			if add.MatchString(m[1] + " " + m[2]) {
				continue
			}
			g := good.FindStringSubmatch(m[1] + " " + m[2])
			if g == nil || g[6] != "" && g[4] != g[6] {
				t.Errorf("%s: a round key is read by %s %s", file, m[1], m[2])
			}
		}
		if n < atLeast {
			t.Errorf("%s: %d instructions read round keys, want at least %d: the test looks at the wrong place", file, n, atLeast)
		}
	}
}

// assembled is the listing of a file, macros expanded.
func assembled(t *testing.T, file string) string {
	t.Helper()
	cmd := exec.Command("go", "tool", "asm", "-S", "-p", "xts", "-o", filepath.Join(t.TempDir(), "o"),
		"-I", filepath.Join(goroot(t), "pkg", "include"), "-D", "GOARCH_"+runtime.GOARCH, file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go tool asm %s: %v\n%s", file, err, &stderr)
	}
	return string(out)
}

func goroot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(fmt.Errorf("go env GOROOT: %w", err))
	}
	return strings.TrimSpace(string(out))
}
