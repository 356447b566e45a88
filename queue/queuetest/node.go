package queuetest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Node is one redis-server of several that belong together, on a port of 127.0.0.1.
type Node struct {
	// Client is connected to this one server.
	Client *redis.Client
	// Address is host:port.
	Address string

	t         testing.TB
	folder    string
	arguments []string
	process   *exec.Cmd
}

// startNode starts a server that ends with the test.
func startNode(t testing.TB, arguments ...string) *Node {
	t.Helper()
	n := &Node{t: t, folder: t.TempDir(), Address: freeAddress(t), arguments: arguments}
	n.Client = redis.NewClient(&redis.Options{Addr: n.Address, Protocol: 2, MaxRetries: -1, DialTimeout: time.Second, DialerRetries: 1})
	t.Cleanup(func() {
		_ = n.Client.Close()
		n.Kill()
	})
	n.Start()
	return n
}

// Start starts the server, again after Kill, with more arguments than it had, and returns when it answers.
func (n *Node) Start(more ...string) {
	n.t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		n.t.Fatal("redis-server is needed: run .ci/deps, or install Redis 7")
	}
	_, port, _ := net.SplitHostPort(n.Address)
	log := filepath.Join(n.folder, "log")
	// What Sentinel and the nodes of a Cluster rewrite stands in a file.
	file := filepath.Join(n.folder, "redis.conf")
	if _, err := os.Stat(file); err != nil {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	n.process = exec.Command(path, append([]string{file, "--port", port, "--bind", "127.0.0.1", "--dir", n.folder, "--loglevel", "notice", "--logfile", log},
		append(n.arguments, more...)...)...)
	n.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.process.Start(); err != nil {
		n.t.Fatal(err)
	}
	until(n.t, "redis-server to answer", func() error {
		err := n.Client.Ping(context.Background()).Err()
		if err != nil {
			text, _ := os.ReadFile(log)
			err = fmt.Errorf("%w; its log: %s", err, text)
		}
		return err
	})
}

// Kill ends the server at once.
func (n *Node) Kill() { send(n.process, syscall.SIGKILL, true) }

// Freeze stops the server from answering until Thaw.
func (n *Node) Freeze() { send(n.process, syscall.SIGSTOP, false) }

// Thaw ends Freeze.
func (n *Node) Thaw() { send(n.process, syscall.SIGCONT, false) }

// send sends a signal to a process, unless it has ended.
func send(process *exec.Cmd, s syscall.Signal, wait bool) {
	if process == nil || process.ProcessState != nil {
		return
	}
	_ = process.Process.Signal(s)
	if wait {
		_ = process.Wait()
	}
}

// freeAddress gives an address of this machine on which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// until asks again and again until there is no error.
func until(t testing.TB, what string, done func() error) {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-late.C:
			t.Fatalf("half a minute was not enough for %s: %v", what, err)
		case <-tick.C:
		}
	}
}
