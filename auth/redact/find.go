package redact

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	run  = 12 // a text may share fewer characters than this with a secret
	gram = 6  // bytes that are looked up at once
	// step is how far apart texts are looked at: a run of 12 bytes has seven grams, of which one is at a multiple of 7.
	step = run - gram + 1

	layers  = 3       // of encoding that are undone
	window  = 1 << 16 // decoded at once
	overlap = 512     // of two windows, so that no short secret or run is lost between them
	// basicMax is the longest secret that is looked for in base64. Tokens are longer, and are not sent that way.
	basicMax = 256
)

// index finds secrets. It is not changed once made.
type index struct {
	short  [][]byte            // secrets of fewer than run bytes: found as a whole
	long   [][]byte            // found in part
	grams  map[uint64]struct{} // of long
	filter [1 << 11]uint64     // of the hashes of grams; a set bit may mean nothing
}

// span is a range of bytes.
type span struct{ from, to int }

func newIndex(secrets []string) *index {
	x := &index{grams: map[uint64]struct{}{}}
	for _, secret := range secrets {
		x.add([]byte(secret))
		if len(secret) <= basicMax {
			for _, encoded := range inBase64(secret) {
				x.add(encoded)
			}
		}
		// A secret that looks like an escape is found in texts in which that was undone, too.
		for b, _ := decode([]byte(secret)); b != nil; b, _ = decode(b) {
			x.add(b)
		}
	}
	if len(x.short)+len(x.long) == 0 {
		return nil
	}
	return x
}

func (x *index) add(secret []byte) {
	switch {
	case len(secret) < minimum:
	case len(secret) < run:
		x.short = append(x.short, secret)
	default:
		x.long = append(x.long, secret)
		for i := 0; i+gram <= len(secret); i++ {
			g := gramAt(secret, i)
			x.grams[g] = struct{}{}
			h := hash(g)
			x.filter[h/64] |= 1 << (h % 64)
		}
	}
}

// inBase64 returns the characters that any base64 text has that holds the secret between other bytes.
func inBase64(secret string) (texts [][]byte) {
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for ahead := range 3 {
			text := e.EncodeToString([]byte("\x00\x00\x00"[:ahead] + secret))
			first := (ahead*8 + 5) / 6
			last := (ahead + len(secret)) * 8 / 6
			if t := text[first:last]; len(t) >= run {
				texts = append(texts, []byte(t))
			}
		}
	}
	return texts
}

func gramAt(b []byte, i int) uint64 {
	return uint64(binary.LittleEndian.Uint32(b[i:])) | uint64(binary.LittleEndian.Uint16(b[i+4:]))<<32
}

func hash(g uint64) uint64 { return g * 0x9e3779b97f4a7c15 >> 47 } // 17 bits

// find returns the ranges of b to replace, in order, none touching another.
func (x *index) find(b []byte) (spans []span) {
	for from := 0; ; from += window - overlap {
		text, edits := b[from:min(from+window, len(b))], [][]edit(nil)
		for text != nil {
			known := len(spans)
			spans = x.search(spans, text)
			for i, s := range spans[known:] {
				spans[known+i] = span{from + original(edits, s.from), from + original(edits, s.to)}
			}
			if len(edits) == layers {
				break
			}
			var undone []edit
			text, undone = decode(text)
			edits = append(edits, undone)
		}
		if from+window >= len(b) {
			return merge(spans)
		}
	}
}

// edit says that the byte at to in a decoded text, and those up to the next edit, stood at from before.
type edit struct{ to, from int }

// original returns where a byte of a text stood before its layers were undone, of which edits has the first one first.
func original(edits [][]edit, at int) int {
	for _, layer := range slices.Backward(edits) {
		i, exact := slices.BinarySearchFunc(layer, at, func(e edit, at int) int { return cmp.Compare(e.to, at) })
		if !exact {
			i--
		}
		if i >= 0 {
			at += layer[i].from - layer[i].to
		}
	}
	return at
}

func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
			continue
		}
		out = append(out, s)
	}
	return out
}

// search appends the ranges of text that are part of a secret.
func (x *index) search(spans []span, text []byte) []span {
	for _, secret := range x.short {
		for from := 0; ; {
			i := bytes.Index(text[from:], secret)
			if i < 0 {
				break
			}
			spans = append(spans, span{from + i, from + i + len(secret)})
			from += i + len(secret)
		}
	}
	if len(x.long) == 0 {
		return spans
	}
	for i := 0; i+gram <= len(text); i += step {
		g := gramAt(text, i)
		if h := hash(g); x.filter[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		if _, ok := x.grams[g]; !ok {
			continue
		}
		s, ok := x.around(text, i)
		if !ok {
			continue
		}
		spans = append(spans, s)
		i = max(i, s.to-step) // the search goes on at the next byte
	}
	return spans
}

// around returns the longest run at i that text shares with a secret, if it is long enough.
func (x *index) around(text []byte, i int) (longest span, ok bool) {
	for _, secret := range x.long {
		for j := 0; ; j++ {
			k := bytes.Index(secret[j:], text[i:i+gram])
			if k < 0 {
				break
			}
			j += k
			s := span{i, i + gram}
			for s.from > 0 && j-(i-s.from) > 0 && text[s.from-1] == secret[j-(i-s.from)-1] {
				s.from--
			}
			for s.to < len(text) && j+s.to-i < len(secret) && text[s.to] == secret[j+s.to-i] {
				s.to++
			}
			if n := s.to - s.from; n >= run && n > longest.to-longest.from {
				longest, ok = s, true
				break // of a secret that repeats itself, the first place will do
			}
		}
	}
	return longest, ok
}

// decode undoes one layer of encoding, and returns nil if there is none.
func decode(b []byte) (out []byte, edits []edit) {
	if bytes.IndexByte(b, '\\') < 0 && bytes.IndexByte(b, '%') < 0 && bytes.IndexByte(b, '&') < 0 {
		return nil, nil // as most texts, and faster than the loop
	}
	var plain [utf8.UTFMax]byte
	done := 0
	for i := 0; i < len(b); {
		if c := b[i]; c != '\\' && c != '%' && c != '&' {
			i++
			continue
		}
		p, n := unescape(plain[:0], b[i:])
		if n == 0 {
			i++
			continue
		}
		if out == nil {
			out = make([]byte, 0, len(b))
		}
		out = append(out, b[done:i]...)
		for k := range p {
			edits = append(edits, edit{len(out) + k, i})
		}
		out = append(out, p...)
		i += n
		done = i
		edits = append(edits, edit{len(out), i})
	}
	if out == nil {
		return nil, nil
	}
	return append(out, b[done:]...), edits
}

// unescape appends the character that the escape at the beginning of b stands for, and returns the length of
// the escape, 0 if there is none.
func unescape(p, b []byte) ([]byte, int) {
	switch {
	case b[0] == '%':
		if v, ok := hexAt(b, 1, 2); ok {
			return append(p, byte(v)), 3
		}
	case b[0] == '&':
		end := bytes.IndexByte(b[:min(len(b), 10)], ';')
		if end < 0 {
			break
		}
		entity := string(b[:end+1])
		if text := html.UnescapeString(entity); text != entity && len(text) <= utf8.UTFMax {
			return append(p, text...), end + 1
		}
	case len(b) > 1 && b[1] == 'u':
		if v, ok := hexAt(b, 2, 4); ok {
			return utf8.AppendRune(p, rune(v)), 6
		}
	case len(b) > 1:
		if i := strings.IndexByte(`"\/bfnrt`, b[1]); i >= 0 {
			return append(p, "\"\\/\b\f\n\r\t"[i]), 2
		}
	}
	return p, 0
}

func hexAt(b []byte, from, digits int) (uint64, bool) {
	if len(b) < from+digits {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[from:from+digits]), 16, 32)
	return v, err == nil
}
