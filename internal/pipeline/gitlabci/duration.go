package gitlabci

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Forever is the duration of "never", the expire_in of artifacts that are kept.
const Forever = time.Duration(math.MaxInt64)

var durationUnits = map[string]float64{
	"s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
	"m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
	"h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
	"d": 86400, "day": 86400, "days": 86400,
	"w": 604800, "wk": 604800, "wks": 604800, "week": 604800, "weeks": 604800,
	"mo": 2592000, "mos": 2592000, "month": 2592000, "months": 2592000,
	"y": 31557600, "yr": 31557600, "yrs": 31557600, "year": 31557600, "years": 31557600,
}

var durationWords = map[string]string{
	"a": "1", "an": "1", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
	"seven": "7", "eight": "8", "nine": "9", "ten": "10", "twelve": "12", "fifteen": "15",
	"twenty": "20", "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60",
}

var (
	durationPart  = regexp.MustCompile(`[0-9]+(?:\.[0-9]+)?|[a-z]+|:`)
	durationClock = regexp.MustCompile(`^[0-9]+(?::[0-9]+){1,2}$`)
	durationNoise = regexp.MustCompile(`^(?:[0-9a-z:.\s]|,|;)*$`)
)

// ParseDuration reads a duration as GitLab does: "1 week", "3 mins 4 sec", "2h20min", "6 mos 1 day",
// "3 weeks and 2 days", "1:30:00", a bare number of seconds, or "never" (Forever). A month has 30
// days, a year 365.25.
func ParseDuration(text string) (time.Duration, error) {
	t := strings.ToLower(strings.TrimSpace(text))
	if t == "never" {
		return Forever, nil
	}
	bad := fmt.Errorf("%q is not a duration; write for example 30 minutes, 2h20min or 1 week", text)
	if t == "" || !durationNoise.MatchString(t) {
		return 0, bad
	}
	if durationClock.MatchString(t) {
		seconds := 0.0
		for _, p := range strings.Split(t, ":") {
			n, _ := strconv.ParseFloat(p, 64)
			seconds = seconds*60 + n
		}
		return toDuration(seconds, bad)
	}
	seconds, number, any := 0.0, math.NaN(), false
	for _, part := range durationPart.FindAllString(t, -1) {
		if word, ok := durationWords[part]; ok {
			part = word
		}
		if n, err := strconv.ParseFloat(part, 64); err == nil && part[0] <= '9' {
			if !math.IsNaN(number) {
				return 0, bad
			}
			number = n
			continue
		}
		if part == "and" || part == "plus" || part == "with" {
			continue
		}
		unit, ok := durationUnits[part]
		if !ok || math.IsNaN(number) {
			return 0, bad
		}
		seconds += number * unit
		number, any = math.NaN(), true
	}
	if !math.IsNaN(number) { // a number without unit counts seconds
		seconds += number
		any = true
	}
	if !any {
		return 0, bad
	}
	return toDuration(seconds, bad)
}

func toDuration(seconds float64, bad error) (time.Duration, error) {
	if seconds*float64(time.Second) > float64(math.MaxInt64/2) {
		return 0, bad
	}
	return time.Duration(seconds * float64(time.Second)), nil
}
