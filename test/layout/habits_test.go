package layout

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// zapAllowed is what code outside pkg/logfield may name in package zap: how
// to build and pass a logger, no fields and no global logger.
var zapAllowed = []string{
	"Logger", "NewNop", "New", "Field", "Option", "Config", "SamplingConfig",
	"NewAtomicLevel", "NewAtomicLevelAt", "AtomicLevel", "ParseAtomicLevel", "NewProductionConfig", "NewProductionEncoderConfig", "NewDevelopmentEncoderConfig",
	"DebugLevel", "InfoLevel", "WarnLevel", "ErrorLevel", "NewStdLog", "NewStdLogAt", "AddCaller", "AddStacktrace", "WithCaller", "Open", "ErrorOutput",
}

func checkLogFields(tr tree) (complaints []string) {
	tr.parsed(&complaints, func(name string, fset *token.FileSet, f *ast.File) {
		zapName := importName(f, "go.uber.org/zap")
		// Tests make fields of secrets to see them redacted.
		if zapName == "" || path.Dir(name) == "pkg/logfield" || strings.HasSuffix(name, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == zapName && !slices.Contains(zapAllowed, sel.Sel.Name) {
				complaints = append(complaints, fmt.Sprintf("%s: zap.%s: fields come from pkg/logfield, loggers are passed in", fset.Position(n.Pos()), sel.Sel.Name))
			}
			if sel.Sel.Name == "Sugar" {
				complaints = append(complaints, fmt.Sprintf("%s: a sugared logger takes any field", fset.Position(n.Pos())))
			}
			return true
		})
	})
	return complaints
}

// checkSleeps: a test waits for a condition with a deadline, never for a
// while.
func checkSleeps(tr tree) (complaints []string) {
	tr.parsed(&complaints, func(name string, fset *token.FileSet, f *ast.File) {
		if !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(name, "test/") {
			return
		}
		timeName := importName(f, "time")
		if timeName == "" {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == timeName {
					complaints = append(complaints, fmt.Sprintf("%s: time.Sleep in a test: wait for the condition", fset.Position(n.Pos())))
				}
			}
			return true
		})
	})
	return complaints
}

// checkSkips: a test that lacks what it needs fails; a skipped one would pass
// for a proof. The one exception is a test that needs root: it is skipped for others, who
// see it in the summary, with a reason that begins "needs root".
func checkSkips(tr tree) (complaints []string) {
	tr.parsed(&complaints, func(name string, fset *token.FileSet, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				if id, ok := sel.X.(*ast.Ident); ok && (id.Name == "t" || id.Name == "tb") && !needsRoot(call.Args) {
					complaints = append(complaints, fmt.Sprintf("%s: %s: what is missing fails the test", fset.Position(n.Pos()), sel.Sel.Name))
				}
			}
			return true
		})
	})
	return complaints
}

func needsRoot(args []ast.Expr) bool {
	if len(args) == 0 {
		return false
	}
	reason, ok := args[0].(*ast.BasicLit)
	return ok && strings.HasPrefix(reason.Value, `"needs root`)
}

var loose = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func checkLooseEnds(tr tree) (complaints []string) {
	for name, src := range tr {
		if !isSource(name) && path.Ext(name) != ".md" {
			continue
		}
		for _, at := range loose.FindAllIndex(src, -1) {
			line := 1 + bytes.Count(src[:at[0]], []byte("\n"))
			complaints = append(complaints, fmt.Sprintf("%s:%d: %s: do it or drop it", name, line, src[at[0]:at[1]]))
		}
	}
	return complaints
}

// directModules are what the product may require by itself. Another one is
// a decision: name it here. SDKs of clouds stay in modules of their own below test/.
var directModules = []string{
	"github.com/anishathalye/porcupine", // tests only
	"github.com/google/uuid",
	"github.com/pojntfx/go-nbd",
	"github.com/spf13/cobra",
	"github.com/spf13/pflag",
	"go.etcd.io/bbolt",
	"go.uber.org/zap",
	"go.yaml.in/yaml/v3",
	"golang.org/x/crypto",
	"golang.org/x/sync",
	"golang.org/x/sys",
	"golang.org/x/term",
}

var requirement = regexp.MustCompile(`(?m)^\s*(?:require\s+)?(\S+\.\S+/\S+) v\S+(.*)$`)

func checkModules(tr tree) (complaints []string) {
	for _, m := range requirement.FindAllSubmatch(tr["go.mod"], -1) {
		mod, indirect := string(m[1]), bytes.Contains(m[2], []byte("// indirect"))
		if !indirect && !slices.Contains(directModules, mod) {
			complaints = append(complaints, "go.mod: requires "+mod+", which test/layout does not name")
		}
		if strings.Contains(mod, "sdk") {
			complaints = append(complaints, "go.mod: "+mod+" is an SDK: it belongs in a module of its own below test/")
		}
	}
	return complaints
}

func TestLogFields(t *testing.T)   { expectNone(t, checkLogFields(load(t))) }
func TestNoSleeps(t *testing.T)    { expectNone(t, checkSleeps(load(t))) }
func TestNoSkips(t *testing.T)     { expectNone(t, checkSkips(load(t))) }
func TestNoLooseEnds(t *testing.T) { expectNone(t, checkLooseEnds(load(t))) }
func TestModules(t *testing.T)     { expectNone(t, checkModules(load(t))) }

func TestHabitChecksFindFaults(t *testing.T) {
	expectComplaints(t, checkLogFields, []broken{
		{"field outside logfield", tree{"pkg/disk/a.go": []byte("package disk\nimport \"go.uber.org/zap\"\nvar _ = zap.String(\"a\", \"b\")\n")}, "zap.String"},
		{"field under another name", tree{"pkg/disk/a.go": []byte("package disk\nimport z \"go.uber.org/zap\"\nvar _ = z.Any(\"a\", 1)\n")}, "zap.Any"},
		{"global logger", tree{"pkg/disk/a.go": []byte("package disk\nimport \"go.uber.org/zap\"\nvar _ = zap.L()\n")}, "zap.L"},
		{"logger passed in", tree{"pkg/disk/a.go": []byte("package disk\nimport \"go.uber.org/zap\"\nfunc f(l *zap.Logger) {}\n")}, ""},
	})
	expectComplaints(t, checkSleeps, []broken{
		{"sleep in a test", tree{"xts/a_test.go": []byte("package xts\nimport \"time\"\nfunc f() { time.Sleep(1) }\n")}, "time.Sleep"},
		{"sleep in a harness", tree{"test/vm/a.go": []byte("package vm\nimport \"time\"\nfunc f() { time.Sleep(1) }\n")}, "time.Sleep"},
		{"ticker", tree{"test/vm/a.go": []byte("package vm\nimport \"time\"\nvar _ = time.NewTicker\n")}, ""},
	})
	expectComplaints(t, checkSkips, []broken{
		{"skip", tree{"xts/a_test.go": []byte("package xts\nfunc f(t T) { t.Skip() }\n")}, "Skip"},
		{"skip with a reason", tree{"xts/a_test.go": []byte("package xts\nfunc f(t T) { t.Skip(\"no strace\") }\n")}, "Skip"},
		{"skip for root", tree{"xts/a_test.go": []byte("package xts\nfunc f(t T) { t.Skip(\"needs root: it mounts\") }\n")}, ""},
	})
	expectComplaints(t, checkLooseEnds, []broken{
		{"in Go", tree{"xts/a.go": []byte("// TO" + "DO later\n")}, "xts/a.go:1"},
		{"in a script", tree{"scripts/a.sh": []byte("\n# FIX" + "ME\n")}, "scripts/a.sh:2"},
		{"inside a word", tree{"xts/a.go": []byte("// a " + "TO" + "DON\n")}, ""},
	})
	expectComplaints(t, checkModules, []broken{
		{"SDK", tree{"go.mod": []byte("require (\n\tgithub.com/huaweicloud/huaweicloud-sdk-go-v3 v0.1.207 // indirect\n)\n")}, "SDK"},
		{"unknown module", tree{"go.mod": []byte("require github.com/a/b v1.0.0\n")}, "github.com/a/b"},
		{"known module", tree{"go.mod": []byte("require go.uber.org/zap v1.28.0\n")}, ""},
	})
}
