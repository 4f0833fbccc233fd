package publisher

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// JetStream error codes that decide the outcome of a publish; see the server's
// errors.json.
const (
	codeAccountLimit              jetstream.ErrorCode = 10002
	codeInsufficientResources     jetstream.ErrorCode = 10023
	codeNoMemory                  jetstream.ErrorCode = 10028
	codeStorageExceeded           jetstream.ErrorCode = 10047
	codeMessageTooLarge           jetstream.ErrorCode = 10054
	codeWrongLastSequence         jetstream.ErrorCode = 10071
	codeStoreFailed               jetstream.ErrorCode = 10077
	codeHeaderTooLarge            jetstream.ErrorCode = 10097
	codeSealed                    jetstream.ErrorCode = 10109
	codeWrongLastSequenceConstant jetstream.ErrorCode = 10164
)

// refusal is the meaning of a failed publish for the event.
type refusal int

const (
	again   refusal = iota // not about the event, which is sent again
	fenced                 // the subject's last sequence is not the expected one
	refused                // the server refuses this event
	never                  // the event can never be stored
)

// judge classifies the error of a publish.
func judge(err error) refusal {
	if large, _ := TooLarge(err); large {
		return never
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return again
	}
	switch api.ErrorCode {
	case codeWrongLastSequence, codeWrongLastSequenceConstant:
		return fenced
	case codeAccountLimit, codeSealed: // every event would be refused
		return again
	}
	if api.Code == 400 {
		return refused
	}
	return again
}

// TooLarge reports whether a publish failed for the message's size, and whether its
// headers alone are too large for the stream.
func TooLarge(err error) (large, headers bool) {
	if errors.Is(err, nats.ErrMaxPayload) {
		return true, false
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return false, false
	}
	headers = api.ErrorCode == codeHeaderTooLarge
	return headers || api.ErrorCode == codeMessageTooLarge, headers
}

// Full describes in plain words why JetStream has no room for a message, with
// the limit that was reached. It returns "" if err is about something else.
func Full(err error) string {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return ""
	}
	detail := fmt.Sprintf("(%s, code %d)", api.Description, api.ErrorCode)
	switch api.ErrorCode {
	case codeAccountLimit:
		return "the storage limit of the NATS account is reached: raise it, or remove messages from its streams " + detail
	case codeInsufficientResources, codeStorageExceeded:
		return "the JetStream store is full: make room on its disk, raise max_file_store, or remove messages from its streams " + detail
	case codeNoMemory:
		return "the JetStream memory store is full: raise max_memory_store, or remove messages from its streams " + detail
	case codeStoreFailed:
		return "the stream cannot take more: its max_bytes or max_msgs is reached, or its disk failed: raise the limit, or remove messages " + detail
	}
	return ""
}

// reason returns an error's text for operators, the same text for the same cause.
func reason(err error) string {
	if full := Full(err); full != "" {
		return full
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return "no stream takes the events: it was deleted, JetStream is disabled, or a cluster is electing its leader"
	case errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrConnectionReconnecting):
		return "not connected to NATS"
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return "no answer from JetStream in " + ackTimeout.String() +
			" (no permission to publish or to receive answers, a very slow disk, or a store that failed: see the server's log)"
	case ok:
		return fmt.Sprintf("JetStream refuses events: %s (code %d)", api.Description, api.ErrorCode)
	}
	return err.Error()
}

// explain adds a remedy to errors without one.
func explain(err error) error {
	if full := Full(err); full != "" {
		return fmt.Errorf("%s: %w", full, err)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("no answer from JetStream (is it enabled, and may this user publish to $JS.API.>?): %w", err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return fmt.Errorf("JetStream is not enabled on this server: %w", err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("JetStream is not enabled for this account: %w", err)
	}
	return err
}
