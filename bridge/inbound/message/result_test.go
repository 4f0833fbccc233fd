package message

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestReplyTo(t *testing.T) {
	for _, tt := range []struct {
		name, subject string
		ok            bool
	}{
		{"plain", "gateway.results", true}, {"inbox", "_INBOX.abc.1", true}, {"inbox of a user", "_INBOX_gateway.abc", true}, {"prefix of another", "plaspyx.a", true},
		{"JetStream's", "$JS.API.STREAM.DELETE.X", false}, {"system's", "$SYS.x", false}, {"bucket", "$KV.b.k", false}, {"other underscore", "_R_.x", false},
		{"own", "plaspy.in.location.d", false}, {"own root", "plaspy", false}, {"wildcard", "a.*", false}, {"rest", "a.>", false},
		{"space", "a b", false}, {"empty token", "a..b", false}, {"dot at the end", "a.", false}, {"line", "a\r\nPUB b", false}, {"long", strings.Repeat("a", 2000), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, refused := (&Message{Header: map[string][]string{HeaderReplyTo: {tt.subject}}}).ReplyTo(subjects)
			if (got == tt.subject) != tt.ok || (refused == "") != tt.ok {
				t.Errorf("got %q, refused %q", got, refused)
			}
		})
	}
}

// inbox makes a message of a device with the id "d\n".
func inbox(header map[string][]string, body string) *Message {
	subject := "plaspy.in.location.d=0A"
	return &Message{Seq: 7, At: time.Unix(0, 0), Subject: subject, Address: AddressOf(subjects, subject), Header: header, Body: []byte(body)}
}

func TestResultBody(t *testing.T) {
	w := &Writer{Subjects: subjects, MaxPayload: 1 << 20}
	m := inbox(map[string][]string{headerMsgID: {"é"}}, "")
	for _, tt := range []struct{ name, response, want string }{
		{"JSON", " {\"a\": 1.0}\n", `{"a": 1.0}`}, {"nothing", "", "null"}, {"text", "OK \"x\"", `"OK \"x\""`},
		{"cut off", `{"a":`, `"{\"a\":"`}, {"no UTF-8", "\"\xff\"", "\"\\\"�\\\"\""}, {"number", "1", "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, _ := w.Outcome(m, Decision{Tries: Tries{Status: 200, Attempts: 1}, At: time.Unix(0, 0), Response: []byte(tt.response)})
			p := o.Next()
			want := `{"deviceId":"d\n","kind":"location","id":"é","posted":true,"status":200,"attempts":1,"postedAt":"1970-01-01T00:00:00.000Z","response":` + tt.want + `}`
			if string(p.Body) != want || !json.Valid(p.Body) {
				t.Errorf("got  %s\nwant %s", p.Body, want)
			}
			if got, want := p.Header["ce-causationid"], IdempotencyKey("é"); len(got) != 1 || got[0] != want {
				t.Errorf("causation %q, want %q", got, want)
			}
			if p.Subject != "plaspy.result.location.d=0A" || p.Header["Nats-Msg-Id"][0] != "PLASPY_INBOUND:7:0" {
				t.Errorf("%s %v", p.Subject, p.Header)
			}
		})
	}
	o, _ := w.Outcome(m, Decision{Response: bytes.Repeat([]byte("1"), 1<<20)})
	if p := o.Next(); len(p.Body) > 1000 || !json.Valid(p.Body) || !strings.Contains(string(p.Body), `"responseBytes":1048576`) {
		t.Errorf("a response that is too large: %.300s", p.Body)
	}
}

// TestRefusedResult: the letter is stored first, and the result names it.
func TestRefusedResult(t *testing.T) {
	w := &Writer{Subjects: subjects}
	m := inbox(map[string][]string{HeaderReplyTo: {"_INBOX.a"}}, "{}")
	o, refused := w.Outcome(m, Decision{Tries: Tries{Attempts: 2, Status: 404}, Reason: "rejected", Detail: "no such device"})
	if refused != "" || o.Posted() || o.Reply() != nil || o.Next().Subject != "plaspy.dlq.location.d=0A" {
		t.Fatalf("refused %q, next %v", refused, o.Next())
	}
	o.Stored(12)
	want := `{"deviceId":"d\n","kind":"location","id":"PLASPY_INBOUND:7","posted":false,"reason":"rejected","error":"no such device","status":404,"attempts":2,"deadLetter":12}`
	if p := o.Next(); p.Subject != "plaspy.result.location.d=0A" || string(p.Body) != want || p.Header[HeaderPosted] != nil {
		t.Errorf("result %s %v\ngot  %s\nwant %s", p.Subject, p.Header, p.Body, want)
	}
	if o.Reply() != nil {
		t.Error("the reply is sent before the result")
	}
	o.Stored(3)
	if p := o.Reply(); o.Next() != nil || p == nil || p.Subject != "_INBOX.a" || string(p.Body) != want {
		t.Errorf("reply %v", p)
	}
	if o.Replied(); o.Reply() != nil {
		t.Error("the reply is sent twice")
	}
}

// TestUnknownSubject: a message that is not on an inbound subject has no result
// subject; its Reply-To gets the result.
func TestUnknownSubject(t *testing.T) {
	w := &Writer{Subjects: subjects, Source: func(string) string { panic("there is no device") }}
	m := &Message{Seq: 7, Subject: "plaspy.in.x", Address: AddressOf(subjects, "plaspy.in.x"), Header: map[string][]string{HeaderReplyTo: {"a"}}}
	o, _ := w.Outcome(m, Decision{Reason: "unknown subject"})
	if p := o.Next(); p.Subject != "plaspy.dlq.unknown" {
		t.Errorf("letter %v", p)
	}
	o.Stored(5)
	if p := o.Reply(); o.Next() != nil || p == nil || !strings.Contains(string(p.Body), `"kind":"unknown"`) || !strings.Contains(string(p.Body), `"deadLetter":5`) {
		t.Errorf("next %v, reply %v", o.Next(), p)
	}
}

// TestTooLarge: a publication that a stream refuses for its size becomes smaller until it
// fits, and says so.
func TestTooLarge(t *testing.T) {
	many := map[string][]string{headerMsgID: {"mine"}, HeaderReplyTo: {"a"}}
	for i := range 100 {
		many["H"+strconv.Itoa(i)] = []string{strings.Repeat("x", 10*i)}
	}
	for _, tt := range []struct {
		name          string
		header        map[string][]string
		body          int
		headers, size int // the limits of the stream
		id            bool
	}{
		{"headers", map[string][]string{"Big": {strings.Repeat("x", 65000)}, headerMsgID: {"mine"}}, 100, 64 << 10, 1 << 20, true},
		{"many headers", many, 100, 32 << 10, 1 << 20, true},
		{"the id itself", map[string][]string{headerMsgID: {strings.Repeat("x", 65300)}}, 100, 64 << 10, 1 << 20, false},
		{"body", map[string][]string{headerMsgID: {"mine"}}, 700 << 10, 64 << 10, 64 << 10, false},
		{"both", many, 700 << 10, 64 << 10, 4 << 10, false},
		{"hardly anything", many, 700 << 10, 64 << 10, 400, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &Writer{Subjects: subjects}
			o, _ := w.Outcome(inbox(tt.header, strings.Repeat("b", tt.body)), Decision{Reason: strings.Repeat("r", 2000), Detail: strings.Repeat("é", 2000), Response: []byte("x")})
			p := accept(t, o, tt.headers, tt.size)
			if p.Header[HeaderSequence][0] != "7" || p.Header[HeaderSubject][0] == "" || p.Header[HeaderReason][0] == "" {
				t.Errorf("the letter lacks its own headers: %v", p.Header)
			}
			if cut := len(p.Body) < tt.body; cut != (p.Header[HeaderTruncated] != nil) {
				t.Errorf("body of %d bytes, header %q", len(p.Body), p.Header[HeaderTruncated])
			}
			if got := p.Header[HeaderOriginal+headerMsgID] != nil; tt.id != got && tt.id {
				t.Error("the id was dropped before larger headers")
			}
			if tt.size > 10<<10 && tt.headers > tt.size && p.Header[HeaderDropped] == nil {
				t.Errorf("headers are missing, and no header names them: %v", p.Header)
			}
			o.Stored(5)
			p = accept(t, o, tt.headers, tt.size+200)
			if !json.Valid(p.Body) || !strings.Contains(string(p.Body), `"deadLetter":5`) {
				t.Errorf("result %s", p.Body)
			}
		})
	}
}

// accept cuts the next publication until a stream with limits takes it.
func accept(t *testing.T, o *Outcome, headers, size int) *Publication {
	t.Helper()
	for range 200 {
		p, n := o.Next(), 0
		for name, values := range p.Header {
			n += headerSize(name, values)
		}
		switch {
		case n > headers:
			if !o.TooLarge(true) {
				t.Fatalf("not reduced below %d bytes of headers: %v", n, p.Header)
			}
		case n+len(p.Body) > size:
			if !o.TooLarge(false) {
				t.Fatalf("not reduced below %d bytes: %v %s", n+len(p.Body), p.Header, p.Body)
			}
		default:
			return p
		}
	}
	t.Fatal("it does not end")
	return nil
}
