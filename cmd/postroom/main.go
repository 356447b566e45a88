// Command postroom takes mail from applications, keeps it in Redis and delivers it through one provider: the server, and
// the commands that speak to it over its API.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	err := newRootCommand().ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, explain(err))
	}
	code := exitCode(err)
	stop()
	os.Exit(code)
}
