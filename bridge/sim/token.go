package sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"
)

// tokens are those that were issued, and the key that gets one.
type tokens struct {
	user    string
	secret  [8]byte
	maximum int

	mu     sync.Mutex
	key    string
	life   time.Duration
	valid  map[string]grant
	old    map[string]struct{} // revoked
	issued []string            // in order, the oldest forgotten beyond the maximum
	count  TokenCounts
}

// grant is a token that holds until its time.
type grant struct {
	n       int64 // in order of issue
	expires time.Time
}

// TokenCounts are the counters of the token endpoint and of tokens.
type TokenCounts struct {
	Requests int64 `json:"requests"` // that got as far as the endpoint
	Issued   int64 `json:"issued"`
	Refused  int64 `json:"refused"` // for a wrong user or key
	Expired  int64 `json:"expired"` // requests of other endpoints that carried an expired token
	Revoked  int64 `json:"revoked"` // or a revoked one
	Unknown  int64 `json:"unknown"` // or none, or one that was never issued
}

func newTokens(o Options) *tokens {
	t := &tokens{
		user: o.UserName, key: o.APIKey, life: o.TokenLife, maximum: 10_000,
		valid: map[string]grant{}, old: map[string]struct{}{},
	}
	binary.BigEndian.PutUint64(t.secret[:], o.Seed)
	return t
}

// SetKey replaces the account's API key. As at the API, that invalidates the
// old key and every token at once.
func (s *Server) SetKey(key string) {
	s.tokens.mu.Lock()
	s.tokens.key = key
	s.tokens.mu.Unlock()
	s.RevokeTokens()
}

// SetTokenLife changes how long tokens issued from now on hold.
func (s *Server) SetTokenLife(d time.Duration) {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	s.tokens.life = d
}

// RevokeTokens makes every token issued so far invalid, also unexpired ones.
func (s *Server) RevokeTokens() {
	t := s.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	for tok := range t.valid {
		t.old[tok] = struct{}{}
	}
	clear(t.valid)
}

// issueToken is the token endpoint.
func (s *Server) issueToken(r *http.Request) answer {
	if !isJSON(r) {
		return s.failure(http.StatusUnsupportedMediaType, "Content-Type must be application/json.")
	}
	body, ok := readBody(r)
	if !ok {
		return s.failure(http.StatusRequestEntityTooLarge, "Request body too large.")
	}
	var req struct{ UserName, APIKey string }
	if err := json.Unmarshal(body, &req); err != nil {
		return s.failure(http.StatusBadRequest, "Invalid request body.")
	}
	tok, expires, ok := s.tokens.issue(req.UserName, req.APIKey, time.Now())
	if !ok {
		a := newAnswer(s.opts.RefusedStatus)
		a.body = append(a.body, `{"success":false,"token":null,"expires":null,"error":"Invalid API key or username."}`...)
		return a
	}
	a := newAnswer(http.StatusOK)
	a.body = append(a.body, `{"success":true,"token":`...)
	a.body = appendString(a.body, tok)
	a.body = append(a.body, `,"expires":`...)
	a.body = appendString(a.body, expires.Add(s.opts.Skew).UTC().Format(s.opts.ExpiresLayout))
	a.body = append(a.body, `,"error":null}`...)
	return a
}

func (t *tokens) issue(user, key string, now time.Time) (tok string, expires time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count.Requests++
	if user != t.user || key != t.key {
		t.count.Refused++
		return "", time.Time{}, false
	}
	t.count.Issued++
	expires = now.Add(t.life)
	tok = t.jwt(now, expires)
	t.valid[tok] = grant{t.count.Issued, expires}
	t.issued = append(t.issued, tok)
	if len(t.issued) > t.maximum {
		delete(t.valid, t.issued[0])
		delete(t.old, t.issued[0])
		t.issued = t.issued[1:]
	}
	return tok, expires, true
}

// jwt is a token that looks like the API's: signed, and with an id that makes
// it unlike every other.
func (t *tokens) jwt(now, expires time.Time) string {
	enc := base64.RawURLEncoding
	claims := fmt.Sprintf(`{"sub":%q,"jti":"%d","iat":%d,"exp":%d}`, t.user, t.count.Issued, now.Unix(), expires.Unix())
	signed := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, t.secret[:])
	mac.Write([]byte(signed)) // never fails, says hash.Hash
	return signed + "." + enc.EncodeToString(mac.Sum(nil))
}

// check is the number of the valid token that a request carries, 0 if none.
func (t *tokens) check(r *http.Request) int64 {
	tok, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.valid[tok]
	if ok && time.Now().Before(g.expires) {
		return g.n
	}
	switch _, revoked := t.old[tok]; {
	case ok:
		t.count.Expired++
	case revoked:
		t.count.Revoked++
	default:
		t.count.Unknown++
	}
	return 0
}

func (t *tokens) counts() TokenCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

func isJSON(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}
