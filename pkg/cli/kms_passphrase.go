package cli

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sealdisk/pkg/kms/keystore"
	"sealdisk/pkg/secmem"
)

// passphraseFlags say where a passphrase comes from. It is never a flag's
// value or in the environment, where other processes could read it.
type passphraseFlags struct {
	file string
	fd   int
	ask  bool
}

func (p *passphraseFlags) add(f *pflag.FlagSet, what string) {
	f.StringVar(&p.file, "passphrase-file", "", what+": first line of this file, mode 0600")
	f.IntVar(&p.fd, "passphrase-fd", -1, what+": first line of this file descriptor")
	f.BoolVar(&p.ask, "ask-passphrase", false, what+": ask on the terminal")
}

func (p *passphraseFlags) given() bool { return p.file != "" || p.fd >= 0 || p.ask }

// read returns the passphrase in locked memory, which the caller destroys. On
// a terminal it is asked for, twice if confirm.
func (p *passphraseFlags) read(a *App, prompt string, confirm bool) (*secmem.Buffer, error) {
	switch {
	case p.file != "":
		return keystore.ReadPassphraseFile(p.file)
	case p.fd >= 0:
		if _, err := unix.FcntlInt(uintptr(p.fd), unix.F_GETFD, 0); err != nil {
			return nil, usagef("", "there is no file descriptor %d", p.fd)
		}
		f := os.NewFile(uintptr(p.fd), "passphrase")
		defer f.Close()
		return keystore.ReadPassphrase(f)
	}
	f, ok := a.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, usagef("give it with --passphrase-file or --passphrase-fd", "%s: not asked, standard input is not a terminal", prompt)
	}
	first, err := ask(a, f, prompt)
	if err != nil || !confirm {
		return first, err
	}
	second, err := ask(a, f, "Once more")
	if err != nil {
		return nil, closeAfter(first, err)
	}
	same := bytes.Equal(first.Bytes(), second.Bytes())
	if err := second.Destroy(); err != nil || !same {
		if err == nil {
			err = usagef("", "the passphrases differ")
		}
		return nil, closeAfter(first, err)
	}
	return first, nil
}

func ask(a *App, f *os.File, prompt string) (*secmem.Buffer, error) {
	fmt.Fprintf(a.Err, "%s: ", prompt)
	b, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.Err)
	if err != nil {
		clear(b)
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	return keystore.NewPassphrase(b)
}
