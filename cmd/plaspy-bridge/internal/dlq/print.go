package dlq

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/inbound/deadletter"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/publisher"
)

// errEnough ends a list that has reached its limit.
var errEnough = errors.New("limit reached")

// letterList prints letters, as a table or as JSON.
type letterList struct {
	out   io.Writer
	limit int // 0 means no limit
	json  bool
}

// print prints the letters that each yields.
func (p *letterList) print(each func(func(deadletter.Letter) error) error) error {
	w := tabwriter.NewWriter(p.out, 0, 4, 2, ' ', 0)
	n := 0
	err := each(func(l deadletter.Letter) error {
		if p.limit > 0 && n == p.limit {
			return errEnough
		}
		n++
		if p.json {
			_, err := fmt.Fprintf(p.out, "%s%s", map[bool]string{true: "[\n", false: ",\n"}[n == 1], letterJSON(&l, false))
			return err
		}
		if n == 1 {
			_, _ = fmt.Fprintln(w, "SEQ\tTIME\tKIND\tDEVICE\tSTATUS\tATTEMPTS\tREASON\tANSWER")
		}
		_, err := fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.Seq, l.At.UTC().Format(time.RFC3339), l.Kind,
			cli.Shown(l.Device), cli.Shown(l.Status), l.Attempts, cli.Shown(l.Reason), cli.Shown(sentence(l.Reason, l.Error)))
		if n%200 == 0 {
			err = errors.Join(err, w.Flush()) // aligned lines are held in memory
		}
		return err
	})
	more := errors.Is(err, errEnough)
	if more {
		err = nil
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	switch {
	case p.json && n == 0:
		_, err = fmt.Fprintln(p.out, "[]")
	case p.json:
		_, err = fmt.Fprintln(p.out, "\n]")
	case more:
		_, err = fmt.Fprintf(p.out, "%s, and more\n", letters(n))
	default:
		_, err = fmt.Fprintf(p.out, "%s\n", letters(n))
	}
	return err
}

func letters(n int) string {
	if n == 1 {
		return "1 dead letter"
	}
	return strconv.Itoa(n) + " dead letters"
}

// sentence returns the API's error text from the excerpt of an answer, or the
// beginning of the excerpt. It is empty if the excerpt repeats the reason.
func sentence(reason, excerpt string) string {
	if excerpt == reason {
		return ""
	}
	var answer struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(excerpt), &answer); err == nil && answer.Error != "" {
		excerpt = answer.Error
	}
	return redact.Line(excerpt, 80)
}

// letterView is a letter as JSON.
type letterView struct {
	Seq      uint64    `json:"seq"`
	Died     time.Time `json:"died"`
	Kind     string    `json:"kind"`
	Device   string    `json:"device"`
	Reason   string    `json:"reason"`
	Error    string    `json:"error"`
	Status   string    `json:"status"`
	Attempts int       `json:"attempts"`
	FirstTry string    `json:"firstTry,omitempty"`
	LastTry  string    `json:"lastTry,omitempty"`
	Subject  string    `json:"subject"`
	Sequence uint64    `json:"sequence"`
	History  []string  `json:"history,omitempty"`
	// The other fields are set only if the letter is shown in full.
	Headers    map[string][]string `json:"headers,omitempty"`
	Body       *string             `json:"body,omitempty"`
	BodyBase64 string              `json:"bodyBase64,omitempty"` // if the body is not UTF-8
	Truncated  bool                `json:"truncated,omitempty"`
}

// letterJSON writes a letter on one line; encoding/json escapes control
// characters.
func letterJSON(l *deadletter.Letter, whole bool) string {
	v := letterView{
		Seq: l.Seq, Died: l.At.UTC(), Kind: string(l.Kind), Device: l.Device, Reason: l.Reason, Error: l.Error, Status: l.Status, Attempts: l.Attempts,
		FirstTry: l.FirstTry, LastTry: l.LastTry, Subject: l.Original, Sequence: l.Sequence, History: l.History, Truncated: l.Truncated,
	}
	if whole {
		v.Headers = map[string][]string{}
		for name, values := range l.Header {
			if !deadletter.Described(name) {
				v.Headers[name] = values
			}
		}
		if body := string(l.Body); utf8.ValidString(body) {
			v.Body = &body
		} else {
			v.BodyBase64 = base64.StdEncoding.EncodeToString(l.Body)
		}
	}
	b, err := json.Marshal(v)
	if err != nil { // cannot happen: every field marshals
		return "{}"
	}
	return strings.Map(func(r rune) rune {
		if r == '\x7f' || r >= 0x80 && !unicode.IsPrint(r) {
			return unicode.ReplacementChar // JSON does not escape it, and a terminal might obey it
		}
		return r
	}, string(b))
}

// describe formats a letter as text: the failure, the message's own headers and
// its body.
func describe(l *deadletter.Letter) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-11s %s\n", name, cli.Shown(value))
		}
	}
	line("dead letter", strconv.FormatUint(l.Seq, 10))
	line("time", l.At.UTC().Format(publisher.TimeFormat))
	line("reason", l.Reason)
	if l.Error != l.Reason {
		if answer := sentence(l.Reason, l.Error); answer != redact.Line(l.Error, 80) {
			line("answer", answer)
		}
		line("error", l.Error)
	}
	line("status", l.Status)
	line("attempts", strconv.Itoa(l.Attempts))
	line("first try", l.FirstTry)
	line("last try", l.LastTry)
	line("device", cli.Shown(l.Device))
	line("from", fmt.Sprintf("%s, sequence %d", l.Original, l.Sequence))
	for _, h := range l.History {
		line("before", h)
	}
	names := make([]string, 0, len(l.Header))
	for name := range l.Header {
		if !deadletter.Described(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range l.Header[name] {
			line("header", name+": "+value)
		}
	}
	fmt.Fprintf(&b, "%d bytes:\n", len(l.Body))
	body := string(l.Body)
	if strings.ContainsFunc(body, func(r rune) bool {
		return r == unicode.ReplacementChar || !unicode.IsPrint(r) && r != '\n' && r != '\t'
	}) {
		body = strconv.Quote(body)
	}
	b.WriteString(strings.TrimRight(body, "\n"))
	b.WriteByte('\n')
	return b.String()
}
