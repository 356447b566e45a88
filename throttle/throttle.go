// Package throttle keeps the books of limits: how many messages, requests, recipients and uploaded bytes went to a
// provider in a sliding window, for each mailbox or account and for the provider as a whole.
//
// The arithmetic of one limit is Window, in Go and without Redis. Books does the same in Redis, for every worker at once; the
// queue puts it into its scripts, so that what is checked and what is taken is one step. Forecast tells from the books when a
// backlog will be through.
package throttle
