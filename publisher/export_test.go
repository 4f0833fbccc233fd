package publisher

import "time"

// SetReadIdle sets how long a read of the stream waits for the next message, so that a test
// need not wait for seconds.
func SetReadIdle(p *Publisher, d time.Duration) { p.reader.idle = d }
