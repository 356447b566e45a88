package main

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

// readAllRows gives every row, or the error that ends the list.
func readAllRows(source string, separator rune) ([]recipientRow, error) {
	l, err := newRecipientList(strings.NewReader(source), separator)
	if err != nil {
		return nil, err
	}
	var rows []recipientRow
	for {
		row, err := l.next()
		if err == io.EOF {
			return rows, nil
		} else if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
}

func recipient(line int, address, name string, variables ...string) recipientRow {
	r := recipientRow{line: line, recipient: mail.Recipient{To: []mail.Address{{Address: address, Name: name}}}}
	for i := 0; i < len(variables); i += 2 {
		if r.recipient.Variables == nil {
			r.recipient.Variables = make(map[string]any)
		}
		r.recipient.Variables[variables[i]] = variables[i+1]
		if variables[i] == columnUnsubscribe {
			r.recipient.ListUnsubscribe = variables[i+1]
		}
	}
	return r
}

func TestRecipientList(t *testing.T) {
	for name, test := range map[string]struct {
		source    string
		separator rune
		want      []recipientRow
	}{
		"addresses alone":     {"address\na@x.example\nb@x.example\n", 0, []recipientRow{recipient(2, "a@x.example", ""), recipient(3, "b@x.example", "")}},
		"name is a variable":  {"address,name\na@x.example,Ada\n", 0, []recipientRow{recipient(2, "a@x.example", "", "name", "Ada")}},
		"display name is not": {"display_name,address\nAda L., a@x.example \n", 0, []recipientRow{recipient(2, "a@x.example", "Ada L.")}},
		"unsubscribe is both": {"address,list_unsubscribe\na@x.example,https://x.example/u\n", 0,
			[]recipientRow{recipient(2, "a@x.example", "", columnUnsubscribe, "https://x.example/u")}},
		"byte order mark":           {"\xef\xbb\xbfaddress,name\na@x.example,Ada\n", 0, []recipientRow{recipient(2, "a@x.example", "", "name", "Ada")}},
		"byte order mark in quotes": {"\xef\xbb\xbf\"address\"\na@x.example\n", 0, []recipientRow{recipient(2, "a@x.example", "")}},
		"semicolons":                {"address;a,b\na@x.example;1,5\n", 0, []recipientRow{recipient(2, "a@x.example", "", "a,b", "1,5")}},
		"tabs":                      {"address\tname\na@x.example\tAda\n", 0, []recipientRow{recipient(2, "a@x.example", "", "name", "Ada")}},
		"separators in quotes do not count": {"\"a;b;c\",address\n1,a@x.example\n", 0,
			[]recipientRow{recipient(2, "a@x.example", "", "a;b;c", "1")}},
		"a separator of choice": {"address|name\na@x.example|Ada\n", '|', []recipientRow{recipient(2, "a@x.example", "", "name", "Ada")}},
		"quotation marks": {"address,name\na@x.example,\"Ada \"\"the first\"\",\nCountess\"\nb@x.example,Bob\n", 0,
			[]recipientRow{recipient(2, "a@x.example", "", "name", "Ada \"the first\",\nCountess"), recipient(4, "b@x.example", "", "name", "Bob")}},
		"Windows line ends":   {"address,name\r\na@x.example,Ada\r\n", 0, []recipientRow{recipient(2, "a@x.example", "", "name", "Ada")}},
		"no last line end":    {"address\na@x.example", 0, []recipientRow{recipient(2, "a@x.example", "")}},
		"empty lines":         {"\naddress,name\n\na@x.example,Ada\n,\n   \n\nb@x.example,\n", 0, []recipientRow{recipient(4, "a@x.example", "", "name", "Ada"), recipient(8, "b@x.example", "", "name", "")}},
		"capitals and blanks": {" Address , Name\na@x.example,Ada\n", 0, []recipientRow{recipient(2, "a@x.example", "", "Name", "Ada")}},
		"no recipients":       {"address,name\n", 0, nil},
		"an empty address":    {"address,name\n,Ada\n", 0, []recipientRow{recipient(2, "", "", "name", "Ada")}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAllRows(test.source, test.separator)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestRecipientListSaysWhereItIsBroken(t *testing.T) {
	for name, test := range map[string]struct{ source, want string }{
		"empty":                   {"", "is empty"},
		"UTF-16":                  {"\xff\xfea\x00", "is UTF-16"},
		"no address column":       {"secret,name\n", `line 1: no column is named "address"`},
		"a column twice":          {"address,name,name\n", "line 1: column 3 has the name of column 2"},
		"address twice":           {"address,Address\n", "line 1: column 2 has the name of column 1"},
		"a column without a name": {"address,\n", "line 1: column 2 has no name"},
		"a column not UTF-8":      {"address,gr\xfc\xdfe\n", "line 1: column 2 is not UTF-8"},
		"too few fields":          {"address,name\na@x.example,Ada\n\nsecret\n", "line 4: has 1 fields, and the header has 2"},
		"too many fields":         {"address,name\nsecret,b,c\n", "line 2: has 3 fields, and the header has 2"},
		"a value not UTF-8":       {"address,name\nsecret,\xe4\n", "line 2: column 2 is not UTF-8"},
		"an open quotation mark":  {"address,name\na@x.example,\"secret\nb@x.example,Bob\n", "line 2: has a quotation mark that is not closed"},
		"text after a quotation":  {"address,name\na@x.example,\"sec\"ret\n", "line 2: has a quotation mark that is not closed, or text after"},
		"a mark inside a field":   {"address,name\na@x.example,se\"cret\n", "line 2: has a quotation mark inside a field"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readAllRows(test.source, 0)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error repeats what is in the file: %v", err)
			}
		})
	}
}

func TestParseSeparator(t *testing.T) {
	for given, want := range map[string]rune{"": 0, ",": ',', "tab": '\t', `\t`: '\t', "\t": '\t', "|": '|'} {
		if got, err := parseSeparator(given); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", given, got, err, want)
		}
	}
	for _, given := range []string{"ab", `"`, "\n", "\xff", "\x00"} {
		if _, err := parseSeparator(given); exitCode(err) != exitUsage {
			t.Errorf("%q: got %v, want a usage error", given, err)
		}
	}
}

func FuzzRecipientList(f *testing.F) {
	for _, s := range []string{"address\na@b\n", "\xef\xbb\xbfaddress;name\n\"a\"\"b\";c\n", "address\tx\n\t\n\n", "a,\"b", "address,list_unsubscribe,display_name\n1,2,3"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		l, err := newRecipientList(bytes.NewReader(source), 0)
		if err != nil {
			return
		}
		last := 0
		for {
			row, err := l.next()
			if err != nil {
				return
			}
			if row.line <= last || len(row.recipient.To) != 1 || len(row.recipient.Variables) >= len(l.columns)+1 {
				t.Fatalf("row %+v after line %d", row, last)
			}
			last = row.line
		}
	})
}
