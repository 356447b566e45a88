package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

// exporting is a run of failed export.
type exporting struct {
	selection
	file, dir string
	force     bool

	client     *admin.Client
	out, words io.Writer

	exported, there, refused int
}

func newFailedExportCommand() *cobra.Command {
	e := &exporting{}
	c := &cobra.Command{
		Use:   "export [ID...]",
		Short: "Write failed messages to files",
		Long: `Write failed messages as they would be sent again, as .eml files: without Bcc, as always. Nothing changes in the failed store.
The token's role must be operator or admin.

One message goes to standard output, or to the file that --out names. A selection goes into the directory that --dir names,
each message as ID.eml; what is there already is left as it is, so that a run that was interrupted can be repeated. Files are
for their owner alone, and complete as soon as they have their name. A message that can't be exported does not stop the
others.

With --output json there is a line for each file: {"id", "file", "bytes"}, {"id", "file", "already_there"} or {"id", "problem"}.

` + aboutFilters,
		Example: `  postroom failed export 01JZ3Q8Y6M2V7T4K9RBC5XWDHE > failed.eml
  postroom failed export 01JZ3Q8Y6M2V7T4K9RBC5XWDHE --out failed.eml
  postroom failed export --batch 01JZ3Q8Y6M2V7T4K9RBC5XWDHE --dir failed-mail
  postroom failed export --until 2030-01-31 --dir failed-mail && postroom failed delete --until 2030-01-31`,
		RunE: func(c *cobra.Command, ids []string) error {
			e.out, e.words = c.OutOrStdout(), c.ErrOrStderr()
			sel, err := e.choose(c, ids)
			if err != nil {
				return err
			}
			one := onlyIDs(sel.Filter) && len(sel.Filter.IDs) == 1 && e.dir == ""
			if err := e.check(one); err != nil {
				return err
			}
			if e.client, err = e.connect(); err != nil {
				return err
			}
			if one {
				return e.one(c.Context(), sel.Filter.IDs[0])
			}
			return e.many(c.Context(), &sel)
		},
	}
	e.register(c)
	c.Flags().StringVar(&e.file, "out", "", "file for one message; default: standard output")
	c.Flags().StringVar(&e.dir, "dir", "", "directory for a selection; it is made if it is not there")
	c.Flags().BoolVar(&e.force, "force", false, "replace files that are there already")
	return c
}

// check looks for flags that do not go together.
func (e *exporting) check(one bool) error {
	if err := e.connection.check(); err != nil {
		return err
	}
	switch {
	case !one && e.file != "":
		return usage("--out takes one message, named by its id alone: give --dir DIRECTORY for a selection")
	case !one && e.dir == "":
		return usage("a selection goes into a directory: give --dir DIRECTORY")
	case one && e.file == "" && e.json:
		return usage("--output json: standard output is for the message: give --out FILE")
	}
	return nil
}

// exportLine is what --output json says about one message.
type exportLine struct {
	ID      string         `json:"id"`
	File    string         `json:"file,omitempty"`
	Bytes   int64          `json:"bytes,omitempty"`
	There   bool           `json:"already_there,omitempty"`
	Problem *admin.Problem `json:"problem,omitempty"`
}

// named is how many of those who lack a message are named.
const named = 3

// one exports one message to standard output or a file.
func (e *exporting) one(ctx context.Context, id string) error {
	m, err := failedMessageOf(ctx, e.client, id)
	if err != nil {
		return err
	}
	if e.file == "" {
		_, err = e.client.Export(ctx, id, e.out)
	} else {
		err = e.oneFile(ctx, id)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.words, "Still without it: %s. The file names no Bcc.\n", plain(oneLine(orDash(namesOf(lacking(m.Recipients), named)))))
	return err
}

func (e *exporting) oneFile(ctx context.Context, id string) error {
	p := patient{answered: true}
	var n int64
	err := p.try(ctx, func() (err error) {
		n, err = e.save(ctx, id, e.file)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrExist):
		return fail(exitFault, "--out: %s is there already: --force replaces it", e.file)
	case err != nil:
		return err
	case e.json:
		return printJSON(e.out, exportLine{ID: id, File: e.file, Bytes: n})
	}
	return table(e.out, []string{"MESSAGE", "FILE", "BYTES"}, []string{id, e.file, thousands(int(n))})
}

// pageOfExport is how many messages are exported before the server is asked which come next.
const pageOfExport = 100

// many exports a selection into a directory.
func (e *exporting) many(ctx context.Context, sel *admin.Selection) error {
	pages := &failedPages{client: e.client, filter: sel.Filter}
	found := make(map[string]bool)
	bar := newProgress(e.words, 0, "looked at")
	defer bar.clear()
	looked, unreadable := 0, 0
	for !pages.over {
		page, err := pages.next(ctx, pageOfExport)
		if err == nil {
			err = os.MkdirAll(e.dir, 0o700)
		}
		if err != nil {
			bar.clear()
			return e.stopped(err, sel)
		}
		bar.total = looked + page.Scanned + page.Left
		for i := range page.Messages {
			bar.show(looked + page.Scanned*i/len(page.Messages))
			id := page.Messages[i].ID
			found[id] = true
			line, err := e.message(ctx, &pages.patient, id)
			if err == nil {
				err = e.tell(bar, line)
			}
			if err != nil {
				bar.clear()
				return e.stopped(err, sel)
			}
		}
		looked += page.Scanned
		unreadable += page.Unreadable
		bar.show(looked)
	}
	bar.clear()
	return e.report(sel, found, unreadable)
}

// message exports one message of a selection. An error is one that others would meet too.
func (e *exporting) message(ctx context.Context, p *patient, id string) (exportLine, error) {
	line := exportLine{ID: id}
	if !isID(id) { // it could lead out of the directory
		line.Problem = &admin.Problem{Title: "The server gave it an id that is none"}
		return line, nil
	}
	line.File = filepath.Join(e.dir, id+".eml")
	err := p.try(ctx, func() (err error) {
		line.Bytes, err = e.save(ctx, id, line.File)
		if errors.As(err, &line.Problem) && ofOne(line.Problem) {
			return nil
		}
		line.Problem = nil
		return err
	})
	switch {
	case errors.Is(err, fs.ErrExist):
		line.There = true
		return line, nil
	case line.Problem != nil:
		line.File = ""
	}
	return line, err
}

// ofOne reports whether a refusal is about one message and not about all.
func ofOne(p *admin.Problem) bool {
	switch p.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return true
}

// tell counts what became of a message; programs get a line for each, people one for each that was not exported.
func (e *exporting) tell(bar *progress, line exportLine) error {
	switch {
	case line.Problem != nil:
		e.refused++
	case line.There:
		e.there++
	default:
		e.exported++
	}
	if e.json {
		return printJSON(e.out, line)
	}
	if line.Problem != nil {
		bar.clear()
		fmt.Fprintf(e.words, "%s: not exported: %s\n", oneLine(plain(line.ID)), reasons(line.Problem))
	}
	return nil
}

// stopped tells how far a run came that did not come to its end.
func (e *exporting) stopped(err error, sel *admin.Selection) error {
	done := e.exported + e.there
	if done == 0 {
		return err
	}
	fmt.Fprintf(e.words, "%s in %s when this ended.\n", several(done, "failed message"), e.dir)
	return &failure{code: exitCode(err), err: err, hint: e.again(sel, time.Time{})}
}

// report sums up.
func (e *exporting) report(sel *admin.Selection, found map[string]bool, unreadable int) error {
	if !e.json {
		if err := table(e.out, []string{"DIRECTORY", "EXPORTED", "THERE ALREADY", "NOT EXPORTED"},
			[]string{e.dir, thousands(e.exported), thousands(e.there), thousands(e.refused)}); err != nil {
			return err
		}
	}
	tellUnreadable(e.words, unreadable)
	if missing := len(sel.Filter.IDs) - len(found) - unreadable; missing > 0 && onlyIDs(sel.Filter) {
		return notFailed(missing)
	}
	if e.refused > 0 {
		return fail(exitFault, "%s could not be exported", several(e.refused, "failed message"))
	}
	return nil
}

// save exports a message into a file, which appears complete or not at all. That it is there already is fs.ErrExist,
// unless it may be replaced.
func (e *exporting) save(ctx context.Context, id, path string) (n int64, err error) {
	if info, err := os.Lstat(path); err == nil {
		if !e.force {
			return 0, fs.ErrExist
		}
		if !info.Mode().IsRegular() {
			return 0, fmt.Errorf("%s: it is not a file that can be replaced", path)
		}
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".export-*") // for its owner alone
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // unless it has its name by then
	n, err = e.client.Export(ctx, id, temp)
	if err == nil {
		err = temp.Sync() // what is exported may be deleted next
	}
	if err = cmp.Or(err, temp.Close()); err != nil {
		return 0, err
	}
	return n, e.publish(temp.Name(), path)
}

// publish gives a file its name.
func (e *exporting) publish(temp, path string) error {
	if !e.force {
		// A rename would replace what has come to be there meanwhile.
		err := os.Link(temp, path)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		// Not every file system has links. Then the look before has to do.
	}
	return os.Rename(temp, path)
}
