package runner

import (
	"fmt"
	"io"
	"syscall"
)

// nonBlocking keeps an open of a named pipe from waiting for its other end.
const nonBlocking = syscall.O_NONBLOCK | syscall.O_NOFOLLOW

// helperLog writes lines as the official runner's helper does.
type helperLog struct{ w io.Writer }

func (l *helperLog) info(format string, args ...any) { l.line("", "", format, args...) }
func (l *helperLog) warn(format string, args ...any) {
	l.line(ansiYellow, "WARNING: ", format, args...)
}
func (l *helperLog) fail(format string, args ...any) { l.line(ansiRed, "ERROR: ", format, args...) }

// line pads the message as the helper's log formatter does. An error of the
// trace is the trace's to report.
func (l *helperLog) line(colour, prefix, format string, args ...any) {
	_, _ = fmt.Fprintf(l.w, "%s%s%-*s%s \n", colour, prefix, 50-len(prefix), fmt.Sprintf(format, args...), ansiReset)
}
