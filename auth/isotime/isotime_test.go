package isotime

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	base := time.Date(2023, 12, 31, 23, 59, 58, 0, time.UTC)
	for _, tc := range []struct {
		name, text string
		want       time.Time
		zoned      bool
	}{
		{"as documented", "2023-12-31T23:59:58Z", base, true},
		{"no offset", "2023-12-31T23:59:58", base, false},
		{"offset with colon", "2024-01-01T05:29:58+05:30", base, true},
		{"offset without colon", "2023-12-31T18:59:58-0500", base, true},
		{"offset in hours", "2023-12-31T18:59:58-05", base, true},
		{"zero offset", "2023-12-31T23:59:58+00:00", base, true},
		{"negative zero offset", "2023-12-31T23:59:58-00:00", base, true},
		{"one digit", "2023-12-31T23:59:58.5Z", base.Add(500 * time.Millisecond), true},
		{"milliseconds", "2023-12-31T23:59:58.009Z", base.Add(9 * time.Millisecond), true},
		{"seven digits", "2023-12-31T23:59:58.1234567", base.Add(123456700), false},
		{"nine digits", "2023-12-31T23:59:58.123456789Z", base.Add(123456789), true},
		{"ten digits", "2023-12-31T23:59:58.1234567891Z", base.Add(123456789), true},
		{"comma", "2023-12-31T23:59:58,25-05:00", base.Add(5*time.Hour + 250*time.Millisecond), true},
		{"space", "2023-12-31 23:59:58Z", base, true},
		{"lower case", "2023-12-31t23:59:58z", base, true},
		{"no seconds", "2023-12-31T23:59Z", base.Add(-58 * time.Second), true},
		{"no seconds with offset", "2023-12-31T18:59-05:00", base.Add(-58 * time.Second), true},
		{"date", "2023-12-31", time.Date(2023, 12, 31, 0, 0, 0, 0, time.UTC), false},
		{"basic", "20231231T235958Z", base, true},
		{"basic without seconds", "20231231T2359Z", base.Add(-58 * time.Second), true},
		{"leap second", "2023-12-31T23:59:60Z", base.Add(time.Second), true},
		{"hour of one digit", "2023-12-31T9:59:58Z", base.Add(-14 * time.Hour), true},
		{"leap day", "2024-02-29T00:00:00Z", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC), true},
		{"far future", "9999-12-31T23:59:59Z", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), true},
		{"white space around", " 2023-12-31T23:59:58Z\n", base, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, zoned, err := Parse(tc.text)
			if err != nil || !got.Equal(tc.want) || zoned != tc.zoned {
				t.Errorf("got %v zoned=%v %v, want %v zoned=%v", got, zoned, err, tc.want, tc.zoned)
			}
		})
	}
	for _, text := range []string{
		"", "soon", "2023", "2023-12", "2023-13-01", "2023-00-01", "2023-02-30", "2023-02-29", "2023-12-31T", "2023-12-31T23",
		"2023-12-31T24:00Z", "2023-12-31T23:60Z", "2023-12-31T23:59:61Z", "2023-12-31T23:59:58.Z", "2023-12-31T23:59:58+5",
		"2023-12-31T23:59:58+05:", "2023-12-31T23:59:58+05:60", "2023-12-31T23:59:58+24:00", "2023-12-31T23:59:58ZZ",
		"2023-12-31T23:59:58 UTC", "2023-12-3１T23:59:58Z", "-2023-12-31", "1703980798", "2023-1231", "202312-31",
	} {
		if got, _, err := Parse(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

// FuzzParse checks that Parse agrees with Go's own RFC 3339 parser, and that no input makes the
// parser panic or leave the range of years.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"2023-12-31T23:59:58Z", "2023-12-31 23:59,5+0530", "20231231T2359", "0000-01-01T00:00:00-23:59", "2023-12-31T9:05:00+00:00", "2023-12-31T9:05:00+00:60"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, zoned, err := Parse(s)
		if want, goErr := time.Parse(time.RFC3339Nano, s); goErr == nil && !beyondOffsets(s) {
			if err != nil || !got.Equal(want) || !zoned {
				t.Errorf("%q: got %v %v %v, want %v", s, got, zoned, err, want)
			}
		}
		if err == nil && (got.Year() < -1 || got.Year() > 10000) {
			t.Errorf("%q: got %v", s, got)
		}
	})
}

// beyondOffsets reports whether a time that Go reads has an offset of 24 hours or 60 minutes, which Go allows.
func beyondOffsets(s string) bool {
	return strings.HasSuffix(s, ":60") || len(s) > 6 && strings.ContainsAny(s[len(s)-6:len(s)-5], "+-") && s[len(s)-5:len(s)-3] == "24"
}
