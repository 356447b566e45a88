// Package queuetest starts real Redis servers for tests.
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

// Redis is a redis-server of its own for one test: on a unix socket in the test's folder, with an AOF that is synced each
// second, so that it can be stopped and started again.
type Redis struct {
	// Client is connected to the server, with go-redis's defaults.
	Client *redis.Client
	// URL is for redis.ParseURL.
	URL string

	t       testing.TB
	folder  string
	port    string // "0": none
	more    []string
	process *exec.Cmd
}

// Start starts a server; it ends with the test.
func Start(t testing.TB) *Redis {
	t.Helper()
	return start(t, "0")
}

// StartWith is Start with more arguments of redis-server, which go before those that it has anyway.
func StartWith(t testing.TB, arguments ...string) *Redis {
	t.Helper()
	return start(t, "0", arguments...)
}

// StartTCP is Start for programs that speak to no unix socket: the server also listens on a free port of 127.0.0.1, and URL
// leads there.
func StartTCP(t testing.TB) *Redis {
	t.Helper()
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	r := start(t, port)
	r.URL = "redis://" + address + "/0"
	return r
}

func start(t testing.TB, port string, more ...string) *Redis {
	t.Helper()
	folder, err := os.MkdirTemp("", "redis") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &Redis{t: t, folder: folder, port: port, more: more}
	socket := filepath.Join(folder, "s")
	r.URL = "unix://" + socket
	r.Client = redis.NewClient(&redis.Options{Network: "unix", Addr: socket, PoolSize: 100})
	t.Cleanup(func() {
		_ = r.Client.Close()
		r.Kill()
		_ = os.RemoveAll(folder)
	})
	r.Restart()
	return r
}

// Restart starts the server again after Kill, with what its AOF has.
func (r *Redis) Restart() {
	r.t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		r.t.Fatal("redis-server is needed: run .ci/deps, or install Redis 7")
	}
	// Everything is written at once, and never synced: what a killed server had told anybody is there again. With everysec a write can
	// wait for a slow disk, and is lost with the server.
	r.process = exec.Command(path, append([]string{"--port", r.port, "--bind", "127.0.0.1", "--unixsocket", filepath.Join(r.folder, "s"),
		"--dir", r.folder, "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--maxmemory-policy", "noeviction",
		"--loglevel", "warning", "--logfile", filepath.Join(r.folder, "log")}, r.more...)...)
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.process.Start(); err != nil {
		r.t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := r.Client.Ping(ctx).Err()
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(r.folder, "log"))
			r.t.Fatalf("redis-server does not answer: %v\n%s", err, log)
		}
	}
}

// Kill ends the server at once; what it had written stays in its AOF.
func (r *Redis) Kill() { send(r.process, syscall.SIGKILL, true) }

// Freeze stops the server from answering until Thaw.
func (r *Redis) Freeze() { send(r.process, syscall.SIGSTOP, false) }

// Thaw ends Freeze.
func (r *Redis) Thaw() { send(r.process, syscall.SIGCONT, false) }

// Memory gives the bytes that Redis says its data takes: used_memory.
func (r *Redis) Memory() int64 {
	r.t.Helper()
	info, err := r.Client.InfoMap(context.Background(), "memory").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscan(info["Memory"]["used_memory"], &n); err != nil {
		r.t.Fatal(err)
	}
	return n
}
