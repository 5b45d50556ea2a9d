// Package layout holds the tests that keep the shape of the project: which
// package may import which (the floors), what stands at the top level, how
// long files are, and the habits that a compiler does not check. It has no code
// of its own.
//
// Every check is a function from a tree to complaints. It runs on the
// project, which must give none, and on small broken trees, which must
// give the complaint: so the guards themselves are tested.
package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tree is the project's files by slash-separated path from its root.
type tree map[string][]byte

// projectRoot is where go.mod stands, seen from this package.
const projectRoot = "../.."

// load gives the project, read once, without what git does not keep.
func load(t *testing.T) tree {
	t.Helper()
	tr, err := project()
	if err != nil {
		t.Fatal(err)
	}
	if len(tr) < 5 {
		t.Fatalf("only %d files found below %s", len(tr), projectRoot)
	}
	return tr
}

var project = sync.OnceValues(func() (tree, error) {
	out := tree{}
	err := filepath.WalkDir(projectRoot, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(projectRoot, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch rel {
		case ".git", "bin", "dist":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil // a worktree's .git is a file
		}
		if !d.Type().IsRegular() {
			return nil
		}
		switch filepath.Ext(rel) {
		case ".test", ".out", ".prof":
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		out[rel] = b
		return nil
	})
	return out, err
})

// parsed calls fn for every Go file outside testdata, and complains of those
// that do not parse.
func (tr tree) parsed(complaints *[]string, fn func(name string, fset *token.FileSet, f *ast.File)) {
	for name, src := range tr {
		if path.Ext(name) != ".go" || strings.Contains(name, "testdata/") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, src, parser.ParseComments)
		if err != nil {
			*complaints = append(*complaints, err.Error())
			continue
		}
		fn(name, fset, f)
	}
}

// importName is the name by which f knows the package with this path, "" if
// it does not import it.
func importName(f *ast.File, pkg string) string {
	for _, i := range f.Imports {
		if strings.Trim(i.Path.Value, `"`) != pkg {
			continue
		}
		if i.Name != nil {
			return i.Name.Name
		}
		return path.Base(pkg)
	}
	return ""
}

// expectNone fails for each complaint about the project.
func expectNone(t *testing.T, complaints []string) {
	t.Helper()
	for _, c := range complaints {
		t.Error(c)
	}
}

// broken is a tree with a fault that a check must find.
type broken struct {
	name  string
	files tree
	want  string // part of the complaint; "" wants none
}

func expectComplaints(t *testing.T, check func(tree) []string, cases []broken) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(check(c.files), "\n")
			if c.want == "" && got != "" {
				t.Errorf("complains of a tree that is in order: %s", got)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("complaint %q, want one with %q", got, c.want)
			}
		})
	}
}
