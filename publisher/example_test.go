package publisher_test

import (
	"fmt"

	"plaspy-bridge/publisher"
)

// Every name begins with the prefix. Ids are encoded, so that any of them fits into a
// subject.
func ExampleSubjects() {
	s := publisher.Subjects("plaspy")
	device := publisher.Encode("truck 7")
	fmt.Println(s.Location(device))
	fmt.Println(s.Alert(device, publisher.Encode("High Speed")))
	fmt.Println(s.InLocation(device))
	fmt.Println(s.Result("location", device))
	fmt.Println(s.Events(), s.LastBucket())

	fmt.Println(s.Kind("plaspy.alert.truck=207.High=20Speed"))
	id, err := publisher.Decode("truck=207")
	fmt.Println(id, err)
	// Output:
	// plaspy.location.truck=207
	// plaspy.alert.truck=207.High=20Speed
	// plaspy.in.location.truck=207
	// plaspy.result.location.truck=207
	// PLASPY_EVENTS plaspy_last
	// alert truck=207 High=20Speed true
	// truck 7 <nil>
}
