package keyscan

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Region is one mapping of a process.
type Region struct {
	From, To uint64
	Perm     string // as in /proc/PID/maps
	Name     string
}

// Report is what a scan of a process saw.
type Report struct {
	Findings []Finding
	// Unreadable are the mappings, or parts of them, that the kernel did not
	// show.
	Unreadable []Region
	Bytes      uint64 // read
	Threads    int    // whose registers were read
}

// Maps returns the mappings of a process.
func Maps(pid int) ([]Region, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Region
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		from, to, ok := strings.Cut(fields[0], "-")
		if !ok || len(fields) < 5 {
			return nil, fmt.Errorf("line of maps: %q", lines.Text())
		}
		r := Region{Perm: fields[1]}
		if r.From, err = strconv.ParseUint(from, 16, 64); err != nil {
			return nil, err
		}
		if r.To, err = strconv.ParseUint(to, 16, 64); err != nil {
			return nil, err
		}
		if len(fields) > 5 {
			r.Name = strings.Join(fields[5:], " ")
		}
		all = append(all, r)
	}
	return all, lines.Err()
}

const chunkSize = 1 << 20

// overlap is how much of a chunk is looked at again with the next, so that
// nothing hides at the seam.
const overlap = 4096

// ScanProcess reads all memory and all registers of a process, which it stops
// meanwhile, as a debugger that writes a core would. It needs root.
func ScanProcess(pid int, n *Needles) (*Report, error) {
	runtime.LockOSThread() // ptrace goes by thread
	defer runtime.UnlockOSThread()
	rep := new(Report)
	threads, err := stop(pid)
	defer resume(threads)
	if err != nil {
		return nil, err
	}
	rep.Threads = len(threads)
	for _, tid := range threads {
		if err := rep.scanRegisters(tid, n); err != nil {
			return nil, err
		}
	}
	return rep, rep.scanMemory(pid, n)
}

// ScanMemory reads all memory of a process that goes on running. It is for a
// child of the caller: its end and its stops would be mixed up.
func ScanMemory(pid int, n *Needles) (*Report, error) {
	rep := new(Report)
	return rep, rep.scanMemory(pid, n)
}

func (rep *Report) scanMemory(pid int, n *Needles) error {
	maps, err := Maps(pid)
	if err != nil {
		return err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return err
	}
	defer mem.Close()
	for _, r := range maps {
		if r.Perm[0] != 'r' {
			continue // nobody can have put anything there
		}
		present, err := presentRuns(pid, r)
		if err != nil {
			return err
		}
		for _, run := range present {
			rep.scanRegion(mem, run, n)
		}
	}
	return nil
}

// presentRuns returns the parts of r that are in memory or swap
// (/proc/PID/pagemap, bits 63 and 62). The others were never touched, or are as in the
// file that they are mapped from.
func presentRuns(pid int, r Region) (runs []Region, err error) {
	if strings.HasPrefix(r.Name, "[v") { // the kernel's own, as vsyscall, which no table covers
		return []Region{r}, nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	page := uint64(os.Getpagesize())
	entries := make([]byte, (r.To-r.From)/page*8)
	if _, err := f.ReadAt(entries, int64(r.From/page*8)); err != nil {
		return nil, fmt.Errorf("pagemap of %+v: %w", r, err)
	}
	for i := 0; i < len(entries); i += 8 {
		if binary.LittleEndian.Uint64(entries[i:])>>62 == 0 {
			continue
		}
		at := r.From + uint64(i/8)*page
		if l := len(runs); l > 0 && runs[l-1].To == at {
			runs[l-1].To += page
		} else {
			runs = append(runs, Region{at, at + page, r.Perm, r.Name})
		}
	}
	return runs, nil
}

// scanRegion reads a mapping piece by piece; a piece that can't be read is
// tried page by page.
func (rep *Report) scanRegion(mem io.ReaderAt, r Region, n *Needles) {
	buf := make([]byte, chunkSize+overlap)
	carry := 0 // bytes at the beginning of buf that are of the piece before
	for at := r.From; at < r.To; {
		want := int(min(chunkSize, r.To-at))
		got, _ := mem.ReadAt(buf[carry:carry+want], int64(at)) // after a short read the next page is tried
		if got == 0 {
			page := min(uint64(os.Getpagesize()), r.To-at)
			rep.unreadable(Region{at, at + page, r.Perm, r.Name})
			at, carry = at+page, 0
			continue
		}
		rep.Bytes += uint64(got)
		rep.scan(buf[:carry+got], at-uint64(carry), r.Name, n)
		at += uint64(got)
		keep := min(overlap, carry+got)
		copy(buf, buf[carry+got-keep:carry+got])
		carry = keep
	}
}

func (rep *Report) unreadable(r Region) {
	if l := len(rep.Unreadable); l > 0 && rep.Unreadable[l-1].To == r.From {
		rep.Unreadable[l-1].To = r.To
		return
	}
	rep.Unreadable = append(rep.Unreadable, r)
}

func (rep *Report) scan(b []byte, base uint64, where string, n *Needles) {
	found := func(off int, what string) {
		f := Finding{base + uint64(off), what, where}
		// The overlap of two pieces shows the same thing twice.
		for i := len(rep.Findings) - 1; i >= 0 && i >= len(rep.Findings)-64; i-- {
			if rep.Findings[i] == f {
				return
			}
		}
		rep.Findings = append(rep.Findings, f)
	}
	if n != nil {
		n.find(b, found)
	}
	skew := int(-base & 3) // schedules lie at multiples of 4
	findSchedules(b[min(skew, len(b)):], func(off int, what string) { found(off+skew, what) })
}

// registerSets are what PTRACE_GETREGSET gives, as ELF notes (elf.h): NT_PRSTATUS,
// NT_PRFPREG, and on x86 NT_X86_XSTATE with the whole of the vector registers.
var registerSets = map[int]string{1: "registers", 2: "floating point registers"}

func init() {
	if runtime.GOARCH == "amd64" {
		registerSets[0x202] = "vector registers"
	}
}

// scanRegisters looks at the registers of a thread.
func (rep *Report) scanRegisters(tid int, n *Needles) error {
	for note, name := range registerSets {
		buf := make([]byte, 64<<10)
		iov := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGSET, uintptr(tid), uintptr(note),
			uintptr(unsafe.Pointer(&iov)), 0, 0); errno != 0 {
			return fmt.Errorf("%s of thread %d: %w", name, tid, errno)
		}
		rep.scan(buf[:iov.Len], 0, RegistersOf+name, n)
	}
	return nil
}

// RegistersOf begins the Where of what lies in a thread's registers.
const RegistersOf = "thread's "

// stop stops all threads of a process, also those that start meanwhile.
func stop(pid int) (stopped []int, err error) {
	have := map[int]bool{}
	for {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return stopped, err
		}
		more := false
		for _, e := range entries {
			tid, err := strconv.Atoi(e.Name())
			if err != nil || have[tid] {
				continue
			}
			err = unix.PtraceSeize(tid)
			if errors.Is(err, syscall.ESRCH) {
				continue // it ended
			}
			if err == nil {
				err = unix.PtraceInterrupt(tid)
			}
			if err == nil {
				var ws unix.WaitStatus
				_, err = unix.Wait4(tid, &ws, unix.WALL, nil)
			}
			if err != nil {
				return stopped, fmt.Errorf("stop thread %d: %w", tid, err)
			}
			have[tid], more = true, true
			stopped = append(stopped, tid)
		}
		if !more {
			return stopped, nil
		}
	}
}

func resume(threads []int) {
	for _, tid := range threads {
		_ = unix.PtraceDetach(tid) // it may have been killed
	}
}
