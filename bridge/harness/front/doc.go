// Package front puts the simulated API behind real TCP. An [API] has a [Door] for each
// life of each bridge, and therefore knows which bridge sent a request and which one
// received an answer. It can also refuse connections, freeze them, throttle one bridge,
// and answer with the pages of a gateway.
package front
