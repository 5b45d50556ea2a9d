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

// maxLines is the longest a source file may be without a reason in its head.
const maxLines = 600

// longReason, in the first lines of a file, excuses its length.
var longReason = regexp.MustCompile(`(?i)over 600 lines: \S`)

var topLevel = []string{
	"cmd", "pkg", "blockdev", "xts", "test", "scripts", ".ci",
	"go.mod", "go.sum", "Makefile", "LICENSE", "staticcheck.conf",
	"README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "BENCHMARKS.md",
	".gitignore", ".gitattributes", ".editorconfig", ".go-version",
}

var badNames = []string{"common", "util", "utils", "types", "helper", "helpers", "misc", "shared"}

func isSource(name string) bool {
	switch path.Ext(name) {
	case ".go", ".s", ".sh", ".py":
		return !strings.Contains(name, "testdata/")
	}
	return path.Base(name) == "Makefile"
}

func checkTopLevel(tr tree) (complaints []string) {
	seen := map[string]bool{}
	for name := range tr {
		top, _, _ := strings.Cut(name, "/")
		if !seen[top] && !slices.Contains(topLevel, top) {
			complaints = append(complaints, top+": unexpected at the top level")
		}
		seen[top] = true
	}
	return complaints
}

func checkLengths(tr tree) (complaints []string) {
	for name, src := range tr {
		if !isSource(name) {
			continue
		}
		lines := bytes.Count(src, []byte("\n"))
		head := bytes.Join(bytes.SplitN(src, []byte("\n"), 16)[:min(15, lines)], []byte("\n"))
		if lines > maxLines && !longReason.Match(head) {
			complaints = append(complaints, fmt.Sprintf("%s: %d lines; split it, or say why in its first lines: \"Over 600 lines: …\"", name, lines))
		}
	}
	if main, ok := tr["cmd/sealdisk/main.go"]; ok {
		if n := bytes.Count(main, []byte("\n")); n >= 40 {
			complaints = append(complaints, fmt.Sprintf("cmd/sealdisk/main.go: %d lines, it only joins: under 40", n))
		}
	}
	return complaints
}

func checkPackages(tr tree) (complaints []string) {
	documented := map[string]bool{}
	tr.parsed(&complaints, func(name string, _ *token.FileSet, f *ast.File) {
		dir := path.Dir(name)
		documented[dir] = documented[dir] || f.Doc != nil
		if slices.Contains(badNames, f.Name.Name) || slices.Contains(badNames, path.Base(dir)) {
			complaints = append(complaints, fmt.Sprintf("%s: a package named %q says nothing", name, f.Name.Name))
		}
		if strings.ContainsAny(f.Name.Name, "-ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			complaints = append(complaints, fmt.Sprintf("%s: package names are lower-case: %q", name, f.Name.Name))
		}
	})
	for dir, ok := range documented {
		if !ok {
			complaints = append(complaints, dir+": no package comment")
		}
	}
	return complaints
}

// checkText: whatever is not text was left behind by a tool, unless it is a
// test's data.
func checkText(tr tree) (complaints []string) {
	for name, src := range tr {
		if !strings.Contains(name, "testdata/") && bytes.ContainsRune(src, 0) {
			complaints = append(complaints, name+": not a text file")
		}
	}
	return complaints
}

func TestTextOnly(t *testing.T)      { expectNone(t, checkText(load(t))) }
func TestTopLevelNames(t *testing.T) { expectNone(t, checkTopLevel(load(t))) }
func TestFileLengths(t *testing.T)   { expectNone(t, checkLengths(load(t))) }
func TestPackageNamesAndComments(t *testing.T) {
	expectNone(t, checkPackages(load(t)))
}

func TestFileChecksFindFaults(t *testing.T) {
	long := strings.Repeat("//\n", maxLines+1)
	expectComplaints(t, checkTopLevel, []broken{
		{"stray directory", tree{"internal/a.go": nil}, "internal: unexpected"},
		{"stray file", tree{"notes.txt": nil}, "notes.txt: unexpected"},
		{"ordinary", tree{"pkg/a.go": nil, "go.mod": nil, ".ci/run": nil}, ""},
	})
	expectComplaints(t, checkText, []broken{
		{"left behind", tree{"test/vm/a.state": []byte("a\x00b")}, "not a text file"},
		{"data of a test", tree{"pkg/a/testdata/golden": []byte("a\x00b")}, ""},
	})
	expectComplaints(t, checkLengths, []broken{
		{"long file", tree{"xts/a.go": []byte("package xts\n" + long)}, "602 lines"},
		{"long script", tree{"scripts/a.sh": []byte(long)}, "split it"},
		{"long main", tree{"cmd/sealdisk/main.go": []byte(strings.Repeat("\n", 40))}, "under 40"},
		{"long with a reason", tree{"xts/a.go": []byte("// Over 600 lines: one table of opcodes.\npackage xts\n" + long)}, ""},
		{"short", tree{"xts/a.go": []byte("package xts\n")}, ""},
	})
	expectComplaints(t, checkPackages, []broken{
		{"no comment", tree{"xts/a.go": []byte("package xts\n")}, "xts: no package comment"},
		{"grab-bag", tree{"pkg/a/util/a.go": []byte("// Package util is.\npackage util\n")}, "says nothing"},
		{"capitals", tree{"pkg/a/a.go": []byte("// Package myPkg is.\npackage myPkg\n")}, "lower-case"},
		{"comment in one file of two", tree{"xts/a.go": []byte("package xts\n"), "xts/b.go": []byte("// Package xts is.\npackage xts\n")}, ""},
	})
}
