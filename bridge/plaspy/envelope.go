package plaspy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"plaspy-bridge/bridge/plaspy/rawjson"
)

// envelope is what every answer has around its payload.
type envelope struct {
	success    flag
	message    string // error, if it is a string
	payload    []byte // value of the member asked for; nil if absent
	usage      int    // apiUsage; 0 if absent or no integer
	dailyUsage int
	own        bool // success or error is there: the API itself answered
}

// refusesToken reports whether the API says, in place of a 401, that it does not take the token. There is nothing
// but the text to tell by.
func (e envelope) refusesToken() bool {
	if e.success != no {
		return false
	}
	text := strings.ToLower(e.message)
	contains := func(word string) bool { return strings.Contains(text, word) }
	return slices.ContainsFunc([]string{"token", "jwt"}, contains) && slices.ContainsFunc([]string{
		"expired", "has expir", "invalid", "not valid", "no longer valid", "revoked",
		"expirad", "vencid", "caducad", "inválid", "no válid", "no es válid", "revocad",
	}, contains)
}

type flag int

const (
	absent flag = iota // or null
	yes
	no
	misfit
)

// openEnvelope walks an answer's outermost members. The error says what is wrong in a reader's words.
func openEnvelope(body []byte, payload string) (env envelope, err error) {
	err = rawjson.Members(body, func(key, value []byte) bool {
		switch string(key) {
		case "success":
			env.own = true
			env.success = readFlag(value)
		case "error":
			env.own = true
			text, _ := rawjson.Unquote(value)
			env.message = string(text)
		case "apiUsage":
			env.usage = readInt(value)
		case "apiDailyUsage":
			env.dailyUsage = readInt(value)
		default:
			if string(key) == payload {
				env.payload = value
			}
		}
		return true
	})
	if err == nil {
		return env, nil
	}
	text := bytes.TrimSpace(body)
	switch {
	case len(text) == 0:
		return env, errors.New("empty answer")
	case text[0] == '<':
		return env, errors.New("answer is HTML or XML, not JSON")
	}
	return env, fmt.Errorf("answer is no JSON object: %w", err)
}

func readFlag(value []byte) flag {
	switch string(value) {
	case "true":
		return yes
	case "false":
		return no
	case "null":
		return absent
	}
	return misfit
}

func readInt(value []byte) int {
	n, err := strconv.Atoi(string(value)) // does not allocate: the compiler sees that Atoi keeps nothing
	if err != nil {
		return 0
	}
	return n
}

// open judges a 2xx answer whose payload is the named member. Where `success` is
// missing, a payload makes up for it: its absence is documented nowhere, but with the payload there nothing
// is in doubt.
func (c *Client) open(r *request, p *reply, payload string) (envelope, error) {
	env, err := openEnvelope(p.body, payload)
	if err == nil && (env.own || env.payload != nil) {
		c.answered(p)
	}
	switch {
	case err != nil:
		return env, c.bad(r, p, err.Error(), err)
	case env.success == no:
		message := env.message
		if message == "" {
			message = "success is false"
		}
		e := c.bad(r, p, message, errRefused)
		e.tokenRefused = env.refusesToken()
		return env, e
	case env.success == misfit:
		return env, c.bad(r, p, "success is neither true nor false", nil)
	case env.success == absent && env.payload == nil && payload != "":
		return env, c.bad(r, p, "answer has neither success nor "+payload, nil)
	}
	return env, nil
}
