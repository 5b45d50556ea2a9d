package layout

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"strings"
	"testing"
)

// module is the path that project imports begin with.
const module = "sealdisk"

// floors gives each package its floor, also the ones that come with later work.
// A package may import packages on lower floors, and its own parent; a package
// that is missing here is an error.
var floors = map[string]int{
	"cmd/sealdisk": 5,

	"pkg/daemon": 4,
	"pkg/cli":    4,

	"pkg/bench":     3,
	"pkg/apiserver": 3,
	"pkg/kmsserver": 3,
	"pkg/metrics":   3,

	"pkg/disk":            2,
	"pkg/nbdserver":       2,
	"pkg/nbdserver/gonbd": 2,
	"pkg/keyfetch":        2,

	"blockdev":              1,
	"blockdev/luks2":        1,
	"blockdev/blockdevtest": 1,
	"pkg/kms":               1,
	"pkg/kms/keystore":      1,
	"pkg/kms/dew":           1,
	"pkg/kms/kmstest":       1,
	"pkg/hostattach":        1,
	"pkg/client":            1,
	"pkg/nbd/nbdclient":     1,

	"xts":          0,
	"pkg/secmem":   0,
	"pkg/nbd":      0,
	"pkg/audit":    0,
	"pkg/api":      0,
	"pkg/logfield": 0,
	"pkg/latency":  0,
}

// testing packages: may be imported only by test files and by each other.
func forTests(pkg string) bool {
	return pkg == "test" || strings.HasPrefix(pkg, "test/") || strings.HasSuffix(pkg, "test")
}

// floorOf is a package's floor. A package of tests (blockdev/blockdevtest)
// stands on the floor of what it tests.
func floorOf(pkg string) (floor int, known bool) {
	floor, known = floors[pkg]
	if !known && strings.HasSuffix(pkg, "test") {
		floor, known = floors[path.Dir(pkg)]
	}
	return floor, known
}

func checkFloors(tr tree) (complaints []string) {
	tr.parsed(&complaints, func(name string, _ *token.FileSet, f *ast.File) {
		from := path.Dir(name)
		if strings.HasPrefix(from, "test/") || strings.HasPrefix(from, "scripts/") || strings.Contains(from, "/_asm") {
			return
		}
		fromFloor, known := floorOf(from)
		if !known {
			complaints = append(complaints, fmt.Sprintf("%s: package %s has no floor: give it one in test/layout", name, from))
			return
		}
		for _, i := range f.Imports {
			p := strings.Trim(i.Path.Value, `"`)
			to, ours := strings.CutPrefix(p, module+"/")
			if !ours || to == from {
				continue
			}
			if forTests(to) && !strings.HasSuffix(name, "_test.go") && !forTests(from) {
				complaints = append(complaints, fmt.Sprintf("%s: product code imports %s, which is for tests", name, to))
				continue
			}
			toFloor, known := floorOf(to)
			child := strings.HasPrefix(from, to+"/")
			switch {
			case !known && !forTests(to):
				complaints = append(complaints, fmt.Sprintf("%s: imports %s, which has no floor", name, to))
			case toFloor <= fromFloor && forTests(to) && strings.HasSuffix(name, "_test.go"):
				// Tests may use the suites of tests of their own floor.
			case toFloor > fromFloor:
				complaints = append(complaints, fmt.Sprintf("%s: floor %d imports %s of floor %d above it", name, fromFloor, to, toFloor))
			case toFloor == fromFloor && !child && known:
				complaints = append(complaints, fmt.Sprintf("%s: imports its sibling %s on floor %d", name, to, toFloor))
			}
		}
	})
	return complaints
}

func TestImportsGoDownwards(t *testing.T) {
	expectNone(t, checkFloors(load(t)))
}

func TestFloorCheckFindsFaults(t *testing.T) {
	expectComplaints(t, checkFloors, []broken{
		{"upwards", tree{"xts/a.go": []byte("package xts\nimport _ \"sealdisk/blockdev\"\n")}, "floor 0 imports blockdev of floor 1"},
		{"upwards in a test", tree{"xts/a_test.go": []byte("package xts\nimport _ \"sealdisk/blockdev\"\n")}, "above it"},
		{"sibling", tree{"pkg/disk/a.go": []byte("package disk\nimport _ \"sealdisk/pkg/nbdserver\"\n")}, "sibling pkg/nbdserver"},
		{"sibling below one parent", tree{"pkg/kms/dew/a.go": []byte("package dew\nimport _ \"sealdisk/pkg/kms/keystore\"\n")}, "sibling"},
		{"parent imports child", tree{"pkg/kms/a.go": []byte("package kms\nimport _ \"sealdisk/pkg/kms/dew\"\n")}, "sibling"},
		{"product imports a test package", tree{"pkg/disk/a.go": []byte("package disk\nimport _ \"sealdisk/blockdev/blockdevtest\"\n")}, "for tests"},
		{"package without floor", tree{"pkg/util/a.go": []byte("package util\n")}, "no floor"},
		{"import without floor", tree{"pkg/disk/a.go": []byte("package disk\nimport _ \"sealdisk/pkg/new\"\n")}, "no floor"},
		{"child imports parent", tree{"blockdev/luks2/a.go": []byte("package luks2\nimport _ \"sealdisk/blockdev\"\n")}, ""},
		{"downwards", tree{"pkg/disk/a.go": []byte("package disk\nimport _ \"sealdisk/blockdev/luks2\"\n")}, ""},
		{"own tests use the suite", tree{"blockdev/a_test.go": []byte("package blockdev_test\nimport _ \"sealdisk/blockdev/blockdevtest\"\n")}, ""},
	})
}
