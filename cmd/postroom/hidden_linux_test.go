package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/postroom/postroom/admin"
)

// openTerminal gives a terminal, and the end at which somebody types.
func openTerminal(t *testing.T) (typist, terminal *os.File) {
	t.Helper()
	typist, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = typist.Close() })
	var unlock, number int32
	control(t, typist, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	control(t, typist, syscall.TIOCGPTN, unsafe.Pointer(&number))
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return typist, terminal
}

func control(t *testing.T, f *os.File, what uintptr, with unsafe.Pointer) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), what, uintptr(with)); errno != 0 {
		t.Fatal(errno)
	}
}

// echoes reports whether the terminal shows what is typed.
func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	var state syscall.Termios
	control(t, terminal, syscall.TCGETS, unsafe.Pointer(&state))
	return state.Lflag&syscall.ECHO != 0
}

func TestAPasswordThatIsTypedIsNotShown(t *testing.T) {
	for name, interrupted := range map[string]bool{"typed": false, "interrupted": true} {
		t.Run(name, func(t *testing.T) {
			f := startProvider(t, activeSMTP())
			f.changed = admin.ProviderChanged{Result: "saved"}
			typist, terminal := openTerminal(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			var words bytes.Buffer
			root := newRootCommand()
			root.SetArgs([]string{"provider", "set", "--password-file", "-"})
			root.SetIn(terminal)
			root.SetOut(io.Discard)
			root.SetErr(&words)
			ended := make(chan error, 1)
			go func() { ended <- root.ExecuteContext(ctx) }()
			for deadline := time.Now().Add(10 * time.Second); echoes(t, terminal); {
				if time.Now().After(deadline) {
					t.Fatal("the terminal goes on showing what is typed")
				}
			}
			if interrupted {
				interrupt()
				if err := <-ended; !errors.Is(err, context.Canceled) || exitCode(err) != exitInterrupted {
					t.Errorf("%v", err)
				}
				if !echoes(t, terminal) {
					t.Error("whoever was interrupted no longer sees what they type")
				}
				_, _ = typist.WriteString("\n") // ends what reads
				return
			}
			if _, err := typist.WriteString(testSecret + "\n"); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if f.settings == nil || f.settings.SMTP.Auth.Password.Reveal() != testSecret {
				t.Error("what was typed is not what was set")
			}
			if !echoes(t, terminal) {
				t.Error("the terminal stays as it was while the password was typed")
			}
			// What the terminal showed is what the typist's end reads, up to a mark.
			if _, err := terminal.WriteString("the end"); err != nil {
				t.Fatal(err)
			}
			var shown []byte
			for buffer := make([]byte, 256); !strings.Contains(string(shown), "the end"); {
				n, err := typist.Read(buffer)
				if err != nil {
					t.Fatal(err)
				}
				shown = append(shown, buffer[:n]...)
			}
			if strings.Contains(string(shown)+words.String(), testSecret) || !strings.Contains(words.String(), "password (it is not shown): ") {
				t.Errorf("shown: %q, words: %q", shown, words.String())
			}
		})
	}
}
