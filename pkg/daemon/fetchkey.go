package daemon

import (
	"os"

	"golang.org/x/sys/unix"

	"sealdisk/pkg/keyfetch"
	"sealdisk/pkg/kms/dew"
)

const (
	conversationFD = 3
	// pagesEnv names the key child's descriptor of the key pages.
	pagesEnv = "SEALDISK_PAGES_FD"
)

// RunFetchKey is the key child: descriptor 3 is the conversation with the
// engine, and the environment names that of the key pages, if there are any. The
// KMS listens on kmsSocket.
func RunFetchKey(kmsSocket string, requireLocked bool) error {
	pages, err := inherited(pagesEnv)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(conversationFD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return usage("only the daemon starts this command", "descriptor %d is no socket", conversationFD)
	}
	unix.CloseOnExec(conversationFD)
	conn := os.NewFile(conversationFD, "key conversation")
	return keyfetch.Run(conn, pages, dew.New(kmsSocket), keyfetch.ChildOptions{RequireLocked: requireLocked})
}
