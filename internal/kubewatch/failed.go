package kubewatch

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Failed gives an error of the Kubernetes API its kind and its words: what is
// the kind of object in lower case, such as "rollout", and name the one that
// was asked for, or empty for a list.
func Failed(op, what, name string, err error) error {
	e := &delivery.Error{Op: op, Err: err}
	switch {
	case apierrors.IsNotFound(err) && name != "":
		e.Kind, e.Message = delivery.NotFound, fmt.Sprintf("There is no %s %s.", what, name)
	case apierrors.IsConflict(err):
		e.Kind, e.Message, e.Next = delivery.Conflict, fmt.Sprintf("%s %s changed in the meantime.", strings.ToUpper(what[:1])+what[1:], name), "Try again."
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		e.Kind, e.Message = delivery.Invalid, err.Error()
	default:
		e.Kind, e.Message, e.Next = delivery.Unavailable, "The cluster does not answer.", "See `slipway status` for the cause."
	}
	return e
}
