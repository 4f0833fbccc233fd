package query

import (
	"net/http"

	"plaspy-bridge/bridge/plaspy/rawjson"
)

// rangeOf reads the body of a request for a range of time, and makes the
// documented one of it. The API checks the times themselves. A location is
// refused: under one reading of the API's documentation it would be stored,
// and a query must not write.
func rangeOf(body []byte, withAlert bool) ([]byte, error) {
	var from, to, alert []byte
	wrong := ""
	err := rawjson.Members(body, func(key, value []byte) bool {
		switch string(key) {
		case "from":
			from = value
		case "to":
			to = value
		case "alertName":
			alert = value
		case "location":
			wrong = "location: is not for a query"
		}
		return true
	})
	switch {
	case err != nil && withAlert:
		wrong = `body: want {"from", "to"[, "alertName"]}: ` + err.Error()
	case err != nil:
		wrong = `body: want {"from", "to"}: ` + err.Error()
	case wrong != "":
	case !isText(from):
		wrong = "from: must be a time"
	case !isText(to):
		wrong = "to: must be a time"
	case alert != nil && !rawjson.IsNull(alert) && !isText(alert):
		wrong = "alertName: must be a string"
	}
	if wrong != "" {
		return nil, &failure{http.StatusBadRequest, wrong}
	}
	b := append(append([]byte(`{"from":`), from...), `,"to":`...)
	b = append(b, to...)
	if withAlert && isText(alert) {
		b = append(append(b, `,"alertName":`...), alert...)
	}
	return append(b, '}'), nil
}

func isText(value []byte) bool {
	s, ok := rawjson.Unquote(value)
	return ok && len(s) > 0
}
