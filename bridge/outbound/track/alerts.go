package track

import (
	"slices"
	"strings"

	"plaspy-bridge/publisher"
)

// SilentAlert is the name of the alert that the bridge itself raises. The API may
// use it as well: the two share a subject and differ in their source.
const SilentAlert = publisher.SilentAlert

// AlertChange is an alert that appears or goes.
type AlertChange struct {
	Alert  string
	Raised bool // else cleared
	Own    bool // the bridge's own alert, silent
}

// state is the change as an alert event names it.
func (c AlertChange) state() string {
	if c.Raised {
		return publisher.Raised
	}
	return publisher.Cleared
}

// changesTo lists the alert changes of a fix after one that had raised these
// alerts, in a stable order: raised ones in the fix's own order, then cleared
// ones. silent is true if the bridge's own alert is raised.
func changesTo(f *Fix, raised []string, silent bool) []AlertChange {
	var list []AlertChange
	if f.AlertsKnown {
		for _, a := range f.Alerts {
			if !slices.Contains(raised, a) {
				list = append(list, AlertChange{Alert: a, Raised: true})
			}
		}
		for _, a := range raised {
			if !slices.Contains(f.Alerts, a) {
				list = append(list, AlertChange{Alert: a})
			}
		}
	}
	if silent {
		list = append(list, AlertChange{Alert: SilentAlert, Own: true})
	}
	return list
}

// The signs in front of an alert's token in [publisher.HeaderEdges]. Released
// versions know the first two, read -silent as their own alert and skip other
// signs.
const (
	signRaised        = '+'
	signCleared       = '-'
	signClearedSilent = '~' // the API's alert silent was cleared
)

// announce writes the changes that follow a location as the value of
// [publisher.HeaderEdges].
func announce(changes []AlertChange) string {
	var b strings.Builder
	for _, c := range changes {
		token := publisher.Encode(c.Alert)
		if b.Len()+len(token)+2 > publisher.MaxEdges {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		switch {
		case c.Raised:
			b.WriteByte(signRaised)
		case c.Alert == SilentAlert && !c.Own:
			b.WriteByte(signClearedSilent)
		default:
			b.WriteByte(signCleared)
		}
		b.WriteString(token)
	}
	return b.String()
}

// announced reads the changes that a location announces.
func announced(header string) []AlertChange {
	var list []AlertChange
	for field := range strings.FieldsSeq(header) {
		alert, err := publisher.Decode(field[1:])
		if err != nil || alert == "" {
			continue
		}
		switch field[0] {
		case signRaised:
			list = append(list, AlertChange{Alert: alert, Raised: true})
		case signCleared:
			list = append(list, AlertChange{Alert: alert, Own: alert == SilentAlert})
		case signClearedSilent:
			list = append(list, AlertChange{Alert: alert})
		}
	}
	return list
}
