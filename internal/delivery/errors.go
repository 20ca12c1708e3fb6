package delivery

import (
	"errors"
	"fmt"
)

// Kind classifies an error by what the caller can do about it.
type Kind string

// Error kinds. Retryable kinds are Unavailable and Conflict; Waiting is not a
// failure but says that a precondition is not there yet.
const (
	NotFound        Kind = "not_found"       // does not exist, or the caller may not know that it does
	Invalid         Kind = "invalid"         // the input is wrong: fix it
	Unauthenticated Kind = "unauthenticated" // say who you are
	Forbidden       Kind = "forbidden"       // known, but not allowed
	Conflict        Kind = "conflict"        // the state changed, or the name is taken
	TooLarge        Kind = "too_large"       // over a configured limit
	TooMany         Kind = "too_many"        // slow down
	Unavailable     Kind = "unavailable"     // a component is away: try again
	Waiting         Kind = "waiting"         // a precondition is not met yet
	Stalled         Kind = "stalled"         // will not succeed without a person
	InternalError   Kind = "internal"        // a defect of ours
	Unimplemented   Kind = "not_implemented" // deliberately not offered
	Canceled        Kind = "canceled"        // the caller went away
)

// Error is an error with a kind, a sentence for the user and the next step.
type Error struct {
	Kind    Kind
	Op      string              // the operation, such as "forge: create project"; for the log
	Message string              // one sentence for the user, without secrets
	Next    string              // what to do about it; may be empty
	Fields  map[string][]string // messages per input field, where the input had fields
	Err     error               // the cause; for the log only
	quiet   error               // a cause whose text Message already has
}

// Error returns the operation, the message and the cause.
func (e *Error) Error() string {
	s := e.Message
	if s == "" {
		s = string(e.Kind)
	}
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error {
	if e.Err == nil {
		return e.quiet
	}
	return e.Err
}

// Errorf returns an Error of the kind whose user message is formatted. The
// operand of a %w verb stays reachable through errors.Is and errors.As.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), quiet: errors.Unwrap(err)}
}

// KindOf returns the kind of the first Error in err's chain, and
// InternalError for any other non-nil error. It returns "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return InternalError
}

// IsNotFound reports whether err is of kind NotFound.
func IsNotFound(err error) bool { return KindOf(err) == NotFound }

// UserMessage returns what may be shown to a person: the message and the next
// step of an Error, or a neutral sentence for anything else.
func UserMessage(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Message != "" {
		if e.Next != "" {
			return e.Message + " " + e.Next
		}
		return e.Message
	}
	return "Something went wrong on our side; the log of the server has the details."
}
