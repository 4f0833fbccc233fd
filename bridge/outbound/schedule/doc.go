// Package schedule decides which device to poll next.
//
// The API takes only so many requests a minute, answers for one device a request, and keeps only the
// newest fix. Once a request may be sent, the caller asks [Schedule.Next] for a device, and reports
// the answer with [Schedule.Done]. A Schedule has no clock, no goroutine and no I/O: the caller passes the
// time, serialises the calls and holds the budget. Equal calls give equal answers.
//
// [NewFixed] polls every device once an interval. [NewAdaptive] spends the same requests on the
// devices that are likely to have news:
//
//   - Package forecast learns when each device reports, and predicts the result of a poll.
//   - A request has a price in seconds of delay. A device on the road is polled just after its k-th
//     predicted fix, for the smallest k with k(k+1)/2 periods worth the price; a parked one after
//     the cube root of 3 x period x price / hazard; one without a rhythm by its rate of news.
//   - The price is solved for: from the number of polls that every device would get at each of a row
//     of prices follows the price at which they use up the rate. It is capped, so that below one
//     request per fix due polls wait in line instead of being priced out.
//   - Spare requests go to devices for which half the price would have been enough, just after a
//     predicted fix. Between two fixes such a poll is worth least.
//   - A device that has been on the road in the last three days waits two laps at most if the rate
//     makes the interval impossible, any other four. A lap is the time in which the rate polls every
//     device once. With a trip-start weight above 1, parked devices that drive wait about one lap.
//
// All times are kept as distances from the first call, by the monotonic clock if the caller's times
// carry one, so a step of the bridge's own clock moves no plan. A step of a device's clock shows in
// fixes that appear far from their usual lag, and the lag is then learnt again. [Schedule.AppendMemory] and
// [Schedule.Restore] carry the knowledge about a device over a restart or to another replica.
package schedule
