package publisher

import "strings"

// HeaderGroups lists the groups of the event's device, encoded by [Encode] and
// separated by commas. A device without groups has no such header.
const HeaderGroups = "plaspy-groups"

// SetGroups adds the ids of the device's groups to an event that was not published
// yet, as "groups" in the body and in [HeaderGroups]. The event's id does not
// depend on them.
func (e *Event) SetGroups(ids []string) {
	b := make([]byte, 0, len(e.msg.Data)+16+32*len(ids))
	b = append(b, `{"groups":[`...)
	var header strings.Builder
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
			header.WriteByte(',')
		}
		b = appendString(b, id)
		header.WriteString(Encode(id))
	}
	b = append(b, `],`...)
	e.msg.Data = append(b, e.msg.Data[1:]...) // every body has members
	if len(ids) > 0 {
		e.SetHeader(HeaderGroups, header.String())
	}
}
