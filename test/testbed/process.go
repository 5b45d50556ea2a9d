package testbed

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// groupMembers are the live processes of a process group.
func groupMembers(group int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		// pid (comm) state ppid pgrp …; comm may hold anything
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 2 && f[2] == strconv.Itoa(group) && f[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// Child returns the daemon's process whose arguments begin with these words, as
// "engine" or "kms serve"; 0 if there is none.
func (d *Daemon) Child(words string) int {
	for _, pid := range groupMembers(d.PID()) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		if len(args) > 1 && strings.HasPrefix(strings.Join(args[1:], " ")+" ", words+" ") {
			return pid
		}
	}
	return 0
}
