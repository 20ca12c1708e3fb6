package registry

import (
	"strings"

	"github.com/sirupsen/logrus"
)

// EngineLog formats the engine's log, which goes to logrus' standard logger.
// The engine calls every answer that is no success an error, and so writes a
// line for each blob that a push asks for in vain; what is the client's
// business is left out here, and all that went wrong on our side passes.
type EngineLog struct{ logrus.Formatter }

// Format implements logrus.Formatter.
func (l EngineLog) Format(e *logrus.Entry) ([]byte, error) {
	if status, ok := e.Data["http.response.status"].(int); ok && status < 500 {
		return nil, nil
	}
	if strings.HasPrefix(e.Message, "error authorizing context") {
		return nil, nil
	}
	return l.Formatter.Format(e)
}
