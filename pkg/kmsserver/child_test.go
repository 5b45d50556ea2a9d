package kmsserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sealdisk/pkg/kmsserver"
)

// The test binary is also a KMS and a client of one, as processes of their own.
const modeEnv = "KMS_TEST_CHILD"

// memlockEnv gives the child little memory that it may lock; "required" makes
// it insist on all.
const memlockEnv = "KMS_TEST_MEMLOCK"

func TestMain(m *testing.M) {
	switch os.Getenv(modeEnv) {
	case "":
		os.Exit(m.Run())
	case "serve":
		os.Exit(childServe(os.Args[1], os.Args[2]))
	case "request":
		os.Exit(childRequest(os.Args[1]))
	}
	os.Exit(2)
}

func childServe(dir, socket string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := zap.Must(zap.NewDevelopment())
	if os.Getenv(memlockEnv) != "" {
		lim := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	err := kmsserver.Serve(ctx, kmsserver.Config{StateDir: dir, Socket: socket, Policy: kmsserver.DefaultPolicy(),
		RequireLocked: os.Getenv(memlockEnv) == "required",
		Ready:         func() { fmt.Println("ready") }}, log)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is a KMS in a process of its own.
type process struct {
	cmd    *exec.Cmd
	socket string
	output *bytes.Buffer // of stderr; complete once the process ended
}

// command is a KMS on dir, to be started.
func command(exe, dir string, env ...string) *process {
	p := &process{socket: filepath.Join(dir, "run", "kms.sock"), output: new(bytes.Buffer)}
	p.cmd = exec.Command(exe, dir, p.socket)
	p.cmd.Env = append(os.Environ(), append(env, modeEnv+"=serve")...)
	p.cmd.Stderr = p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p
}

// spawn starts a KMS on dir and waits until it serves.
func spawn(t testing.TB, dir string) *process {
	t.Helper()
	p := command(os.Args[0], dir)
	p.start(t)
	return p
}

func (p *process) start(t testing.TB) {
	t.Helper()
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	b := make([]byte, 6)
	if _, err := io.ReadFull(out, b); err != nil || string(b) != "ready\n" {
		p.end(syscall.SIGKILL)
		t.Fatalf("the KMS did not start: %v: %s", err, p.output)
	}
}

// end sends sig and waits for the end.
func (p *process) end(sig os.Signal) {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Signal(sig)
		_ = p.cmd.Wait() // it was killed
	}
}

// ask is a request as tests write it; answer is what came back.
type ask struct {
	Method, Path, Body string
	Header             map[string]string
}

type answer struct {
	Status int
	Code   string // error_code
	Msg    string
	Body   string
	Header http.Header
	Err    string
}

// do sends a on a connection of its own.
func do(socket string, a ask) answer {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}
	q, err := http.NewRequest(a.Method, "http://kms"+a.Path, strings.NewReader(a.Body))
	if err != nil {
		return answer{Err: err.Error()}
	}
	for k, v := range a.Header {
		q.Header.Set(k, v)
	}
	rsp, err := c.Do(q)
	if err != nil {
		return answer{Err: err.Error()}
	}
	defer rsp.Body.Close()
	b, err := io.ReadAll(rsp.Body)
	if err != nil {
		return answer{Err: err.Error()}
	}
	out := answer{Status: rsp.StatusCode, Body: string(b), Header: rsp.Header}
	var e struct {
		Error struct {
			Code string `json:"error_code"`
			Msg  string `json:"error_msg"`
		} `json:"error"`
	}
	if json.Unmarshal(b, &e) == nil {
		out.Code, out.Msg = e.Error.Code, e.Error.Msg
	}
	return out
}

func childRequest(socket string) int {
	var asks []ask
	if err := json.NewDecoder(os.Stdin).Decode(&asks); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	answers := make([]answer, len(asks))
	for i, a := range asks {
		answers[i] = do(socket, a)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// binaryIn copies the test binary into dir: where go test builds, only root can go.
func binaryIn(t *testing.T, dir string) (exe string) {
	t.Helper()
	exe = filepath.Join(dir, "test")
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return exe
}

// doAs sends the requests from a process with another uid. It takes root.
func doAs(t *testing.T, uid uint32, socket string, asks []ask) []answer {
	t.Helper()
	exe := binaryIn(t, filepath.Dir(filepath.Dir(socket)))
	in, err := json.Marshal(asks)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, socket)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), modeEnv+"=request")
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var answers []answer
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}
