package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/postroom/postroom/mail"
)

// The columns of a list of recipients that say where the mail goes; each other column is a variable.
const (
	columnAddress     = "address"
	columnDisplayName = "display_name"
	columnUnsubscribe = "list_unsubscribe" // a variable as well, for a link in the text
	columnAttach      = "attach"
)

// recipientList reads recipients from CSV (RFC 4180), row by row. Its errors name lines and columns by number and never
// repeat what is in them: a file without its header would have people's addresses there.
type recipientList struct {
	csv     *csv.Reader
	columns []string
	// Positions of the columns that are no mere variables; -1 if there is none.
	address, displayName, unsubscribe, attach int
}

// recipientRow is one recipient and the line of the file where they begin.
type recipientRow struct {
	line      int
	recipient mail.Recipient
	attach    string // path of the recipient's own file; empty: none
}

// address is what the row says, as it stands.
func (r *recipientRow) address() string { return r.recipient.To[0].Address }

// size is about what the row takes in a request, in bytes.
func (r *recipientRow) size() int {
	n := 64 + 2*len(r.attach) + len(r.address()) + len(r.recipient.To[0].Name) + len(r.recipient.ListUnsubscribe)
	for name, value := range r.recipient.Variables {
		text, _ := value.(string)
		n += len(name) + len(text) + 8
	}
	return n
}

// newRecipientList reads the header. A separator of 0 is told from it.
func newRecipientList(r io.Reader, separator rune) (*recipientList, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	start, err := buffered.Peek(64 << 10)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(start, []byte("\xff\xfe")), bytes.HasPrefix(start, []byte("\xfe\xff")):
		return nil, errors.New("is UTF-16: save it as CSV in UTF-8")
	case bytes.HasPrefix(start, []byte("\xef\xbb\xbf")):
		_, _ = buffered.Discard(3)
		start = start[3:]
	}
	if separator == 0 {
		separator = separatorOf(start)
	}
	l := &recipientList{csv: csv.NewReader(buffered)}
	l.csv.Comma = separator
	header, err := l.csv.Read()
	if err == io.EOF {
		return nil, errors.New("is empty: its first line names the columns, such as address,name")
	} else if err != nil {
		return nil, lineFault(err)
	}
	return l, l.header(header)
}

func (l *recipientList) header(names []string) error {
	positions := make(map[string]int, len(names))
	for i, name := range names {
		name = strings.TrimSpace(name)
		if lower := strings.ToLower(name); slices.Contains([]string{columnAddress, columnDisplayName, columnUnsubscribe, columnAttach}, lower) {
			name = lower
		}
		switch first, twice := positions[name]; {
		case name == "":
			return fmt.Errorf("line 1: column %d has no name", i+1)
		case !utf8.ValidString(name):
			return fmt.Errorf("line 1: column %d is not UTF-8: save the file as CSV in UTF-8", i+1)
		case twice:
			return fmt.Errorf("line 1: column %d has the name of column %d: rename or remove one", i+1, first+1)
		}
		positions[name] = i
		l.columns = append(l.columns, name)
	}
	position := func(name string) int {
		if i, ok := positions[name]; ok {
			return i
		}
		return -1
	}
	l.address, l.displayName, l.unsubscribe, l.attach = position(columnAddress), position(columnDisplayName), position(columnUnsubscribe), position(columnAttach)
	if l.address < 0 {
		return errors.New(`line 1: no column is named "address" (if the columns are not separated by comma, semicolon or tab, use --separator)`)
	}
	return nil
}

// variables names the columns that are variables.
func (l *recipientList) variables() []string {
	var names []string
	for i, name := range l.columns {
		if i != l.address && i != l.displayName && i != l.attach {
			names = append(names, name)
		}
	}
	return names
}

// next gives the next recipient, or io.EOF. Lines without any value are passed over.
func (l *recipientList) next() (recipientRow, error) {
	for {
		fields, err := l.csv.Read()
		if errors.Is(err, csv.ErrFieldCount) {
			if blank(fields) {
				continue
			}
			line, _ := l.csv.FieldPos(0)
			return recipientRow{}, fmt.Errorf("line %d: has %d fields, and the header has %d", line, len(fields), len(l.columns))
		}
		if err != nil {
			return recipientRow{}, lineFault(err)
		}
		if blank(fields) {
			continue
		}
		line, _ := l.csv.FieldPos(0)
		row := recipientRow{line: line}
		to := mail.Address{Address: strings.TrimSpace(fields[l.address])}
		for i, value := range fields {
			switch {
			case !utf8.ValidString(value):
				return recipientRow{}, fmt.Errorf("line %d: column %d is not UTF-8: save the file as CSV in UTF-8", line, i+1)
			case i == l.address:
				continue
			case i == l.displayName:
				to.Name = strings.TrimSpace(value)
				continue
			case i == l.attach:
				row.attach = strings.TrimSpace(value)
				continue
			case i == l.unsubscribe:
				row.recipient.ListUnsubscribe = strings.TrimSpace(value)
			}
			if row.recipient.Variables == nil {
				row.recipient.Variables = make(map[string]any, len(fields))
			}
			row.recipient.Variables[l.columns[i]] = value
		}
		row.recipient.To = []mail.Address{to}
		return row, nil
	}
}

func blank(fields []string) bool {
	for _, f := range fields {
		if strings.TrimSpace(f) != "" {
			return false
		}
	}
	return true
}

// lineFault says where the CSV is broken.
func lineFault(err error) error {
	var broken *csv.ParseError
	if !errors.As(err, &broken) {
		return err
	}
	if errors.Is(broken.Err, csv.ErrBareQuote) {
		return fmt.Errorf(`line %d: has a quotation mark inside a field: put the field in quotation marks and double those inside`, broken.Line)
	}
	return fmt.Errorf(`line %d: has a quotation mark that is not closed, or text after one that is`, broken.StartLine)
}

// separatorOf tells what separates columns from the header: what makes most columns, one of them the address.
func separatorOf(start []byte) rune {
	best, most := ',', 0
	for _, c := range []rune{',', ';', '\t'} {
		r := csv.NewReader(bytes.NewReader(start))
		r.Comma = c
		names, err := r.Read()
		isAddress := func(name string) bool { return strings.EqualFold(strings.TrimSpace(name), columnAddress) }
		if err == nil && len(names) > most && slices.ContainsFunc(names, isAddress) {
			best, most = c, len(names)
		}
	}
	return best
}

// parseSeparator reads --separator; empty means told from the header.
func parseSeparator(s string) (rune, error) {
	switch s {
	case "":
		return 0, nil
	case "tab", `\t`:
		return '\t', nil
	}
	r, size := utf8.DecodeRuneInString(s)
	if size != len(s) || r == utf8.RuneError || strings.ContainsRune("\"\r\n\x00", r) {
		return 0, usage("--separator: give one character, or the word tab")
	}
	return r, nil
}
