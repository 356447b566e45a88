package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
)

// partBytes bounds what the recipients of one request take, so that long variables do not make it too large.
const partBytes = 16 << 20

// part is what of the list goes into one request.
type part struct {
	number int // 1 is the first
	first  int // index of its first recipient in the list
	rows   []recipientRow
}

// listRun is a list being sent.
type listRun struct {
	*sending
	message  mail.Message
	files    *storing
	progress *progress
	// submit hands in one part.
	submit func(context.Context, *part, mail.Batch) (partAnswer, error)

	done, accepted, refused int
	batches                 []string
	table                   [][]string
}

// partAnswer is what became of a part. ids and problems are by position in it; each recipient has one of them.
type partAnswer struct {
	batch    string
	ids      map[int]string
	problems map[int]*admin.Problem
}

// sendList sends the message to each recipient of the list, part by part.
func (s *sending) sendList(ctx context.Context, m mail.Message) error {
	if len(m.To) > 0 {
		return usage("--recipients: the message of --eml has recipients of its own: take out its To")
	}
	separator, err := parseSeparator(s.separator)
	if err != nil {
		return err
	}
	files := &storing{folder: filepath.Dir(s.list)}
	total, err := s.readList(ctx, separator, func(p *part) error {
		for i := range p.rows {
			if err := files.check(&p.rows[i]); err != nil {
				return fmt.Errorf("--recipients: %s: %w", s.list, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if total == 0 {
		return fmt.Errorf("--recipients: %s: has no recipient below its first line", s.list)
	}

	if err := s.checkColumns(m); err != nil {
		return err
	}

	r := &listRun{sending: s, message: m, files: files, progress: newProgress(s.words, total, "handed in")}
	var client *admin.Client
	key, hint := s.runKey()
	if s.dryRun {
		r.submit = tryPart
	} else {
		if client, err = s.connect(); err != nil {
			return err
		}
		files.client = client
		if err := files.message(ctx, &r.message); err != nil {
			return err
		}
		r.submit = func(ctx context.Context, p *part, b mail.Batch) (partAnswer, error) {
			return submitPart(ctx, client, b, key+"/"+strconv.Itoa(p.number))
		}
	}
	_, err = s.readList(ctx, separator, func(p *part) error { return r.send(ctx, p) })
	r.progress.clear()
	if err != nil {
		if r.done > 0 {
			fmt.Fprintf(s.words, "%s of %s recipients were handed in before this went wrong.\n", thousands(r.done), thousands(total))
			if temporary(err) || errors.Is(err, context.Canceled) {
				return unsure(err, hint)
			}
			return &failure{code: exitCode(err), err: err, hint: hint}
		}
		return unsure(err, hint)
	}
	if err := r.report(total); err != nil {
		return err
	}
	if s.wait && r.accepted > 0 {
		if err := s.waitForBatches(ctx, client, r.batches, r.accepted); err != nil {
			return err
		}
	}
	if r.refused > 0 {
		return fail(exitRefused, "%s of %s recipients were refused", thousands(r.refused), thousands(total))
	}
	return nil
}

// checkColumns finds variables that the message uses and the list does not have. What is no template the server tells.
func (s *sending) checkColumns(m mail.Message) error {
	m.Attachments = nil
	content, err := mail.NewContent(&m, true)
	if err != nil {
		return nil
	}
	var missing []string
	for _, name := range content.Variables() {
		if !slices.Contains(s.columns, name) && (name != columnUnsubscribe || m.ListUnsubscribe == "") {
			missing = append(missing, "{{."+plain(name)+"}}")
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("--recipients: %s: no column for what the message uses: %s: the name of a column has to be the same, in its case too", s.list, strings.Join(missing, ", "))
}

// readList gives the list in parts and tells how many recipients it has.
func (s *sending) readList(ctx context.Context, separator rune, each func(*part) error) (total int, err error) {
	f, err := os.Open(s.list)
	if err != nil {
		return 0, fmt.Errorf("--recipients: %w", err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil {
		return 0, fmt.Errorf("--recipients: %w", err)
	} else if !info.Mode().IsRegular() {
		return 0, usage("--recipients: it must be a file, for it is read twice")
	}
	broken := func(err error) error { return fmt.Errorf("--recipients: %s: %w", s.list, err) }
	list, err := newRecipientList(f, separator)
	if err != nil {
		return 0, broken(err)
	}
	s.columns = list.variables()
	p, size := &part{number: 1}, 0
	flush := func() error {
		if len(p.rows) == 0 {
			return nil
		}
		err := each(p)
		p, size = &part{number: p.number + 1, first: total}, 0
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		row, err := list.next()
		if err == io.EOF {
			return total, flush()
		} else if err != nil {
			return total, broken(err)
		}
		if n := row.size(); len(p.rows) == s.batchSize || size+n > partBytes {
			if err := flush(); err != nil {
				return total, err
			}
		}
		p.rows = append(p.rows, row)
		size += row.size()
		total++
	}
}

// send hands in one part and tells what became of it.
func (r *listRun) send(ctx context.Context, p *part) error {
	b := mail.Batch{Message: r.message, Recipients: make([]mail.Recipient, len(p.rows))}
	r.progress.show(r.done)
	for i := range p.rows {
		var err error
		if b.Recipients[i], err = r.files.row(ctx, &p.rows[i]); err != nil {
			return err
		}
	}
	// Nobody waits for a server that was never there; one that goes away for a moment does not end the run.
	delays := patience()
	if r.done == 0 {
		delays = nil
	}
	var answer partAnswer
	err := withRetries(ctx, delays, func() (err error) {
		answer, err = r.submit(ctx, p, b)
		return err
	})
	if err != nil {
		return err
	}
	r.done += len(p.rows)
	r.refused += len(answer.problems)
	r.accepted += len(p.rows) - len(answer.problems)
	if answer.batch != "" {
		r.batches = append(r.batches, answer.batch)
		r.table = append(r.table, []string{answer.batch, strconv.Itoa(len(p.rows) - len(answer.problems)), strconv.Itoa(len(answer.problems))})
	}
	r.progress.show(r.done)
	return r.tell(p, answer)
}

// listLine is what --output json says about one recipient.
type listLine struct {
	Index   int            `json:"index"`
	Address string         `json:"address"`
	ID      string         `json:"id,omitempty"`
	Problem *admin.Problem `json:"problem,omitempty"`
}

// tell writes a line for each recipient, or for people one for each who was refused.
func (r *listRun) tell(p *part, answer partAnswer) error {
	unnamed := 0
	for i, row := range p.rows {
		problem := answer.problems[i]
		if r.json {
			if err := printJSON(r.out, listLine{p.first + i, row.address(), answer.ids[i], problem}); err != nil {
				return err
			}
		} else if problem == &unnamedFault {
			unnamed++
		} else if problem != nil {
			r.progress.clear()
			fmt.Fprintf(r.words, "%s line %d: refused: %s\n", r.list, row.line, reasons(problem))
		}
	}
	if unnamed > 0 {
		fmt.Fprintf(r.words, "%s up to line %d: %s more are refused, whose faults the server does not name.\n", r.list, p.rows[len(p.rows)-1].line, thousands(unnamed))
	}
	return nil
}

// reasons gives the faults of a problem on one line.
func reasons(p *admin.Problem) string {
	if len(p.Errors) == 0 {
		return plain(strings.TrimSpace(p.Title + " " + p.Detail))
	}
	all := make([]string, len(p.Errors))
	for i, f := range p.Errors {
		all[i] = plain(strings.TrimSpace(f.Location + " " + f.Reason))
	}
	return strings.Join(all, "; ")
}

// report sums up.
func (r *listRun) report(total int) error {
	if r.dryRun {
		if !r.json {
			if err := describe(r.out, &r.message); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(r.words, "Dry run: %s of %s recipients would get a message, and nothing was sent.\n", thousands(r.accepted), thousands(total))
		return err
	}
	if !r.json && len(r.table) > 0 {
		if err := table(r.out, []string{"BATCH", "ACCEPTED", "REFUSED"}, r.table...); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(r.words, "%s of %s recipients accepted.\n", thousands(r.accepted), thousands(total))
	return err
}

// submitPart hands a part in. A part of which every recipient is refused is not an error.
func submitPart(ctx context.Context, client *admin.Client, b mail.Batch, key string) (partAnswer, error) {
	accepted, err := client.SendBatch(ctx, b, key)
	if err != nil {
		if problems := allRefused(err, len(b.Recipients)); problems != nil {
			return partAnswer{problems: problems}, nil
		}
		return partAnswer{}, err
	}
	answer := partAnswer{batch: accepted.ID, ids: make(map[int]string), problems: make(map[int]*admin.Problem)}
	for _, r := range accepted.Recipients {
		if r.Problem == nil {
			answer.ids[r.Index] = r.ID
			continue
		}
		// Where the recipient stood in the request says nothing about the list.
		for i := range r.Problem.Errors {
			f := &r.Problem.Errors[i]
			f.Location = strings.TrimPrefix(f.Location, "/recipients/"+strconv.Itoa(r.Index))
		}
		answer.problems[r.Index] = r.Problem
	}
	if refused := len(b.Recipients) - accepted.Accepted; refused != len(answer.problems) {
		return partAnswer{}, fmt.Errorf("the answer refuses %d recipients and lists %d", refused, len(answer.problems))
	}
	return answer, nil
}

// unnamedFault stands for the faults of who is refused with all others: of these the server names the first only.
var unnamedFault = admin.Problem{Title: titleRefused, Detail: "Every recipient of this part is refused, and the server names the first faults only."}

const titleRefused = "The recipient can't be accepted"

// allRefused gives the faults of each of n recipients, of whom the server takes none; nil if it refuses the request for something else.
func allRefused(err error, n int) map[int]*admin.Problem {
	p, ok := errors.AsType[*admin.Problem](err)
	if !ok || p.Type != "urn:postroom:problem:invalid-message" || len(p.Errors) == 0 {
		return nil
	}
	problems := make(map[int]*admin.Problem, n)
	for _, f := range p.Errors {
		of, rest, _ := strings.Cut(strings.TrimPrefix(f.Location, "/recipients/"), "/")
		i, err := strconv.Atoi(of)
		if err != nil || i < 0 || i >= n {
			return nil
		}
		if problems[i] == nil {
			problems[i] = &admin.Problem{Title: titleRefused}
		}
		problems[i].Errors = append(problems[i].Errors, admin.Fault{Location: "/" + rest, Reason: f.Reason})
	}
	for i := range n {
		if problems[i] == nil {
			problems[i] = &unnamedFault
		}
	}
	return problems
}

// tryPart says what the server would, as far as that can be known here.
func tryPart(_ context.Context, _ *part, b mail.Batch) (partAnswer, error) {
	refused, err := b.Validate(mail.Limits{}, time.Now())
	if err != nil {
		return partAnswer{}, err
	}
	answer := partAnswer{problems: make(map[int]*admin.Problem, len(refused))}
	for i, problems := range refused {
		p := &admin.Problem{Title: titleRefused}
		for _, one := range problems {
			p.Errors = append(p.Errors, admin.Fault{Location: strings.TrimPrefix(one.Field, "/recipients/"+strconv.Itoa(i)), Reason: one.Reason})
		}
		answer.problems[i] = p
	}
	return answer, nil
}
