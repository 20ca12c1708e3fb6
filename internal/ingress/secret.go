package ingress

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

func secretVersion(s *corev1.Secret) string { return string(s.UID) + "/" + s.ResourceVersion }

// ofSecret is what was read from a Secret of a version.
type ofSecret interface {
	comparable
	readFrom() string // the version
}

func (c *credentials) readFrom() string { return c.version }
func (t *clientTrust) readFrom() string { return t.version }

// fromSecret reads what an annotation takes from the Secret of the Ingress's
// namespace that it names, and puts it into now. What before holds stays while
// the Secret is not listed yet, or is as it was. Without a good Secret there is
// a problem to tell, and the result, the zero value, lets nobody in.
func fromSecret[T ofSecret](b *builder, p parsedIngress, annotation string, secret *string, before, now map[objectKey]T, read func(*corev1.Secret) (T, error)) T {
	var value, none T
	annotation = annotationPrefix + annotation
	if namespace, name, ok := strings.Cut(*secret, "/"); ok {
		*secret = name
		if namespace != p.ing.Namespace {
			b.problem(p.key, annotation+": a Secret of another namespace is not allowed; nobody is let in until this is put right")
			return none
		}
	}
	key := objectKey{"Secret", p.ing.Namespace, *secret}
	b.needs[key] = true
	s, old := b.secrets[p.ing.Namespace+"/"+*secret], before[key]
	switch {
	case s == nil && !b.in.listed[key]:
		value = old // not listed yet: as it was
	case s == nil:
		b.problem(p.key, fmt.Sprintf("%s: Secret %s does not exist; nobody is let in until it does", annotation, *secret))
	case old != none && old.readFrom() == secretVersion(s):
		value = old
	default:
		var err error
		if value, err = read(s); err != nil {
			b.problem(p.key, annotation+": "+err.Error())
		}
	}
	if value != none {
		now[key] = value
	}
	return value
}
