package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Size is a number of bytes, written with an optional Ki, Mi, Gi or Ti.
type Size int64

var sizeUnits = []struct {
	suffix string
	factor int64
}{{"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}}

// UnmarshalYAML reads a size.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	text, factor := n.Value, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			text, factor = rest, u.factor
			break
		}
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || v > (1<<62)/factor {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a size such as 512Mi", n.Line, n.Value)}}
	}
	*s = Size(v * factor)
	return nil
}

// String writes the size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.factor == 0 {
			return strconv.FormatInt(int64(s)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalYAML writes the size as String does.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// Duration is a span of time; besides Go's units it takes d for days.
type Duration time.Duration

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	bad := &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a duration such as 30m or 15d", n.Line, n.Value)}}
	if days, ok := strings.CutSuffix(n.Value, "d"); ok {
		v, err := strconv.Atoi(days)
		if err != nil || v < 0 || v > 36500 {
			return bad
		}
		*d = Duration(time.Duration(v) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(n.Value)
	if err != nil || v < 0 {
		return bad
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes the duration in Go's form.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }
