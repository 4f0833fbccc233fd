package deadletter

import "plaspy-bridge/publisher"

// Needs lists the permissions for showing dead letters in the live view.
func Needs(s publisher.Subjects) []publisher.Permission {
	const why = "the live view shows no dead letters"
	all := []publisher.Permission{publisher.Request("STREAM.INFO", s.DeadLetters(), why), publisher.Request("DIRECT.GET", s.DeadLetters(), why)}
	for i := range all {
		all[i].Optional = true
	}
	return all
}
