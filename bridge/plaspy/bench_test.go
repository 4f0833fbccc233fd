package plaspy_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"plaspy-bridge/bridge/harness/cpu"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
)

// pollAnswer is an answer of about 900 bytes.
var pollAnswer = []byte(`{"success":true,"error":null,"apiUsage":1,"apiDailyUsage":4711,"lastLocation":{"dateTime":"2024-06-02T08:48:25.009Z",` +
	`"latitude":4.710989,"longitude":-74.072092,"speed":42.5,"course":181,"battery":87,"fuel":55,"inactiveSeconds":12,` +
	`"alerts":["SpeedLimit"],"alertTexts":["Speeding"],"hasCriticalAlert":false,"inputs":[true,false,false,true],` +
	`"attributes":{"driver":"A. Person","note":"` + strings.Repeat("x", 500) + `"}}}`)

func serveAnswer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(pollAnswer)))
	_, _ = w.Write(pollAnswer)
}

// BenchmarkLastLocation compares a poll with a bare net/http loop over the same kind of connection to the same
// server, in one run. cpu-us/op is the whole process's time, server included.
func BenchmarkLastLocation(b *testing.B) {
	s := serve(b, serveAnswer)
	b.Run("bare", func(b *testing.B) {
		tr := &http.Transport{DisableCompression: true}
		defer tr.CloseIdleConnections()
		url, buf := s.URL+"/api/devices/device123/lastLocation", make([]byte, 4096)
		measure(b, func() error {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer x")
			res, err := tr.RoundTrip(req)
			if err != nil {
				return err
			}
			_, err = io.ReadFull(res.Body, buf[:len(pollAnswer)])
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			return err
		})
	})
	b.Run("client", func(b *testing.B) {
		c := newClient(b, s.URL, nil)
		measure(b, pollAndHash(b, c))
	})
	b.Run("without-network", func(b *testing.B) {
		c := reply(b, func(*http.Request) (*http.Response, error) {
			res := answer(200, "")
			res.Body, res.ContentLength = io.NopCloser(strings.NewReader(string(pollAnswer))), int64(len(pollAnswer))
			return res, nil
		})
		measure(b, pollAndHash(b, c))
	})
}

func pollAndHash(b *testing.B, c *plaspy.Client) func() error {
	var buf []byte
	ignore := rawjson.Ignore("inactiveSeconds")
	return func() error {
		l, err := c.LastLocation(b.Context(), "device123", buf)
		if err != nil {
			return err
		}
		buf = l.Buf
		if _, err := rawjson.Hash(l.Raw, ignore); err != nil {
			return fmt.Errorf("hash: %w", err)
		}
		return nil
	}
}

func measure(b *testing.B, f func() error) {
	b.Helper()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	start := cpu.Used()
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu.Used()-start).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
}
