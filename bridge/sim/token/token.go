// Package token issues the tokens of a simulated account and checks them.
//
// It knows neither HTTP nor the rest of the API. Times are arguments.
package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// Options are the settings of an Issuer.
type Options struct {
	User string
	Key  string        // the API key that gets a token
	Life time.Duration // of a token
	Seed uint64        // signs the tokens
}

// Issuer issues tokens and remembers them. It is safe for concurrent use.
type Issuer struct {
	user    string
	secret  [8]byte
	maximum int // how many tokens are remembered

	mu     sync.Mutex
	key    string
	life   time.Duration
	valid  map[string]grant
	old    map[string]struct{} // revoked
	issued []string            // the remembered ones in order of issue
	count  Counts
}

// grant is a token that is valid until it expires.
type grant struct {
	n       int64 // in order of issue
	expires time.Time
}

// Counts are the counters of the token endpoint and of tokens.
type Counts struct {
	Requests int64 `json:"requests"` // for a token, refused ones included
	Issued   int64 `json:"issued"`
	Refused  int64 `json:"refused"` // for a wrong user or key
	Expired  int64 `json:"expired"` // requests of other endpoints that carried an expired token
	Revoked  int64 `json:"revoked"` // or a revoked one
	Unknown  int64 `json:"unknown"` // or none, or one that was never issued
}

// New returns an issuer that has issued no token.
func New(o Options) *Issuer {
	t := &Issuer{
		user: o.User, key: o.Key, life: o.Life, maximum: 10_000,
		valid: map[string]grant{}, old: map[string]struct{}{},
	}
	binary.BigEndian.PutUint64(t.secret[:], o.Seed)
	return t
}

// SetKey replaces the API key and revokes every token, as the API does.
func (t *Issuer) SetKey(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.key = key
	t.revokeLocked()
}

// SetLife changes how long tokens issued from now on are valid.
func (t *Issuer) SetLife(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.life = d
}

// Revoke makes every token issued so far invalid, also unexpired ones.
func (t *Issuer) Revoke() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revokeLocked()
}

func (t *Issuer) revokeLocked() {
	for tok := range t.valid {
		t.old[tok] = struct{}{}
	}
	clear(t.valid)
}

// Issue returns a new token and its expiry. ok is false if the user or the key
// is wrong.
func (t *Issuer) Issue(user, key string, now time.Time) (tok string, expires time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count.Requests++
	if user != t.user || key != t.key {
		t.count.Refused++
		return "", time.Time{}, false
	}
	t.count.Issued++
	expires = now.Add(t.life)
	tok = t.jwtLocked(now, expires)
	t.valid[tok] = grant{t.count.Issued, expires}
	t.issued = append(t.issued, tok)
	if len(t.issued) > t.maximum {
		delete(t.valid, t.issued[0])
		delete(t.old, t.issued[0])
		t.issued = t.issued[1:]
	}
	return tok, expires, true
}

// jwtLocked returns a token that looks like the API's: signed, and with an id
// that no other token has.
func (t *Issuer) jwtLocked(now, expires time.Time) string {
	enc := base64.RawURLEncoding
	claims := fmt.Sprintf(`{"sub":%q,"jti":"%d","iat":%d,"exp":%d}`, t.user, t.count.Issued, now.Unix(), expires.Unix())
	signed := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, t.secret[:])
	mac.Write([]byte(signed)) // hash.Hash: it never returns an error
	return signed + "." + enc.EncodeToString(mac.Sum(nil))
}

// Check returns the number of a valid token, in order of issue from 1, and 0 for
// any other text. It counts why a token is not valid.
func (t *Issuer) Check(tok string, now time.Time) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.valid[tok]
	if ok && now.Before(g.expires) {
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

// Counts returns the counters.
func (t *Issuer) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}
