package view

import (
	"math"
	"regexp"
	"strconv"
	"testing"
)

// TestContrast checks the contrast in both colour schemes: WCAG 2.2,
// 1.4.3 (4.5 to 1) for text, and 1.4.11 (3 to 1) for the rest.
func TestContrast(t *testing.T) {
	css, err := files.ReadFile("assets/style.css")
	if err != nil {
		t.Fatal(err)
	}
	colours := map[string][2]float64{} // luminance, light and dark
	for _, m := range regexp.MustCompile(`--([a-z]+): light-dark\(#([0-9a-f]{6}), #([0-9a-f]{6})\)`).FindAllStringSubmatch(string(css), -1) {
		colours[m[1]] = [2]float64{luminance(t, m[2]), luminance(t, m[3])}
	}
	pairs := []struct {
		ink   []string
		paper []string
		least float64
	}{
		{[]string{"text", "quiet", "accent", "good", "odd", "bad"}, []string{"panel", "ground", "raised", "chosen"}, 4.5},
		{[]string{"place", "text"}, []string{"land"}, 4.5},
		{[]string{"panel"}, []string{"bad", "odd"}, 4.5}, // badges
		{[]string{"accent", "blue", "odd", "bad", "quiet"}, []string{"land", "sea"}, 3},
		{[]string{"accent", "blue", "violet", "odd", "bad"}, []string{"panel"}, 3},
	}
	for _, p := range pairs {
		for _, ink := range p.ink {
			for _, paper := range p.paper {
				a, known := colours[ink]
				b, known2 := colours[paper]
				if !known || !known2 {
					t.Fatalf("no colour %s or %s", ink, paper)
				}
				for i, scheme := range []string{"light", "dark"} {
					if got := (math.Max(a[i], b[i]) + 0.05) / (math.Min(a[i], b[i]) + 0.05); got < p.least {
						t.Errorf("%s on %s, %s: %.2f to 1, want %g", ink, paper, scheme, got, p.least)
					}
				}
			}
		}
	}
}

// luminance is the relative luminance of an sRGB colour.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
