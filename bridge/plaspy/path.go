package plaspy

import (
	"strings"
	"unicode/utf8"
)

const maxID = 1024 // bytes; longer ones would not fit servers' limits on a request line once escaped

// checkID refuses ids that no URL can carry unharmed.
func checkID(id string) error {
	switch {
	case id == "":
		return &IDError{ID: id, Reason: "is empty"}
	case strings.Trim(id, ".") == "":
		// Servers and proxies resolve . and .. as parts of the path, also when they are escaped.
		return &IDError{ID: id, Reason: "is nothing but dots"}
	case len(id) > maxID:
		return &IDError{ID: id, Reason: "is longer than 1024 bytes"}
	case strings.IndexByte(id, 0) >= 0:
		return &IDError{ID: id, Reason: "contains a NUL byte"} // which servers refuse or cut at
	case !utf8.ValidString(id):
		return &IDError{ID: id, Reason: "is not UTF-8"} // and so cannot have come from JSON
	}
	return nil
}

// escapeID writes an id as one path segment. Unlike url.PathEscape it leaves only unreserved characters.
func escapeID(id string) string {
	plain := true
	for i := range len(id) {
		plain = plain && unreserved(id[i])
	}
	if plain {
		return id
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, 3*len(id))
	for i := range len(id) {
		if c := id[i]; unreserved(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// unreserved is RFC 3986, section 2.3.
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~'
}
