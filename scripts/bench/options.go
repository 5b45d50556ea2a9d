package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// build is one sealdisk binary to be measured.
type build struct {
	Name string
	Path string // "" is built from this tree
}

// options is what the flags ask for.
type options struct {
	builds      []build
	main        string // name of the build that ratios are of
	rows        []string
	peers       []string
	variants    []string
	reps        int
	time        time.Duration
	sizeMiB     int
	dir         string // of the warm files
	diskDir     string // of the cold files
	out         string
	svg         string
	from        string
	idleDisks   int
	delayBench  string
	detail      bool
	machineOnly bool
}

func (o *options) size() int64 { return int64(o.sizeMiB) << 20 }

var buildName = regexp.MustCompile(`^[a-z][a-z0-9.]{0,15}$`)

// parseOptions returns errUsage for flags that can't be followed.
func parseOptions(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are told once, by exit
	quick := fs.Bool("quick", false, "the 8 core rows against nbdkit file and nbdkit luks, in about two minutes")
	fs.Func("target", "a sealdisk binary, as NAME=PATH; may be repeated to compare builds (default: this tree's)", func(s string) error {
		name, path, ok := strings.Cut(s, "=")
		if !ok || path == "" || !buildName.MatchString(name) {
			return errors.New("want NAME=PATH, with a short name of lower-case letters and digits")
		}
		o.builds = append(o.builds, build{name, path})
		return nil
	})
	fs.Func("sealdisk", "the sealdisk binary; the same as -target sealdisk=PATH", func(s string) error {
		o.builds = append(o.builds, build{"sealdisk", s})
		return nil
	})
	fs.StringVar(&o.main, "main", "", "the target that ratios are of (default: the last -target)")
	rows := fs.String("rows", "all", "row sets, comma-separated: "+strings.Join(rowSets, ", ")+"; or patterns of rows, as 'randread 4k *'")
	peers := fs.String("peers", "all", "peers, comma-separated: "+strings.Join(peerNames(), ", ")+"; or none")
	variants := fs.String("variants", "all", "kinds of sealdisk's disks, comma-separated: "+strings.Join(allVariants, ", "))
	fs.IntVar(&o.reps, "reps", 3, "turns that each target gets in a row; medians are shown")
	seconds := fs.Float64("time", 3, "seconds of one measurement")
	fs.IntVar(&o.sizeMiB, "size", 1024, "MiB of data in each disk")
	fs.StringVar(&o.dir, "dir", "/dev/shm", "directory for the warm rows' files: a tmpfs, so that servers are measured and not a disk")
	fs.StringVar(&o.diskDir, "disk-dir", "/var/tmp", "directory for the cold rows' files: a disk")
	fs.StringVar(&o.out, "out", "dist/bench", "directory for results.json, results.md and benchmarks.svg")
	fs.StringVar(&o.svg, "svg", "", "write the picture here too")
	fs.StringVar(&o.from, "from", "", "measure nothing: make report and picture of this results.json")
	fs.IntVar(&o.idleDisks, "idle-disks", 100, "disks attached in the row 'idle' of memory")
	fs.StringVar(&o.delayBench, "delay-bench", delayPattern, "benchmarks of "+delayPackage+" that the row set delay runs")
	fs.BoolVar(&o.detail, "detail", false, "while measuring, show CPU and latency below each row")
	fs.BoolVar(&o.machineOnly, "machine", false, "print what this machine and its programs are, and end")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(os.Stdout)
			fmt.Println("Measures sealdisk beside other NBD servers: the same work in one run, taking turns.\nFlags:")
			fs.PrintDefaults()
			return nil, err
		}
		return nil, hint("bench -h lists the flags", "%w: %w", errUsage, err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%w: unexpected %q", errUsage, fs.Arg(0))
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *quick {
		preset(given, "rows", rows, "core")
		preset(given, "peers", peers, "nbdkit-file,nbdkit-luks")
		preset(given, "variants", variants, "encrypted")
		preset(given, "time", seconds, 1.2)
	}
	return o, o.settle(*rows, *peers, *variants, *seconds)
}

// preset changes a flag that was not given.
func preset[T any](given map[string]bool, name string, value *T, to T) {
	if !given[name] {
		*value = to
	}
}

// settle checks the flags and fills what follows from them.
func (o *options) settle(rows, peers, variants string, seconds float64) (err error) {
	if len(o.builds) == 0 {
		o.builds = []build{{Name: "sealdisk"}}
	}
	for i, b := range o.builds {
		if slices.ContainsFunc(o.builds[:i], func(c build) bool { return c.Name == b.Name }) {
			return fmt.Errorf("%w: two targets are named %q", errUsage, b.Name)
		}
		if slices.Contains(peerNames(), b.Name) {
			return fmt.Errorf("%w: a target can't be named like the peer %s", errUsage, b.Name)
		}
	}
	if o.main == "" {
		o.main = o.builds[len(o.builds)-1].Name
	}
	if !slices.ContainsFunc(o.builds, func(b build) bool { return b.Name == o.main }) {
		return fmt.Errorf("%w: -main %s is none of the targets", errUsage, o.main)
	}
	if o.peers, err = choose("peer", peers, peerNames()); err != nil {
		return err
	}
	if o.variants, err = choose("variant", variants, allVariants); err != nil {
		return err
	}
	if len(o.variants) == 0 {
		return fmt.Errorf("%w: -variants: at least one", errUsage)
	}
	o.rows = splitList(rows)
	for _, r := range o.rows {
		if r != "all" && !slices.Contains(rowSets, r) && len(selectCells([]string{r})) == 0 {
			return hint("row sets are "+strings.Join(rowSets, ", ")+"; a pattern is matched with names like \"randread 4k qd1\"",
				"%w: -rows: nothing is called %q", errUsage, r)
		}
	}
	o.time = time.Duration(seconds * float64(time.Second))
	switch {
	case o.reps < 1:
		return fmt.Errorf("%w: -reps: at least 1", errUsage)
	case o.time < 100*time.Millisecond:
		return fmt.Errorf("%w: -time: at least 0.1", errUsage)
	case o.sizeMiB < 64:
		return fmt.Errorf("%w: -size: at least 64", errUsage)
	case o.idleDisks < 1:
		return fmt.Errorf("%w: -idle-disks: at least 1", errUsage)
	}
	return nil
}

// choose reads a comma-separated choice among known names, kept in their order.
func choose(what, list string, known []string) (chosen []string, err error) {
	words := splitList(list)
	for _, w := range words {
		if w != "all" && w != "none" && !slices.Contains(known, w) {
			return nil, hint("known are "+strings.Join(known, ", "), "%w: no such %s: %s", errUsage, what, w)
		}
	}
	for _, k := range known {
		if slices.Contains(words, "all") || slices.Contains(words, k) {
			chosen = append(chosen, k)
		}
	}
	return chosen, nil
}

func splitList(s string) (words []string) {
	for w := range strings.SplitSeq(s, ",") {
		if w = strings.TrimSpace(w); w != "" {
			words = append(words, w)
		}
	}
	return words
}

// wants says whether a row set that is no list of cells was asked for.
func (o *options) wants(set string) bool {
	return slices.Contains(o.rows, set) || slices.Contains(o.rows, "all")
}
