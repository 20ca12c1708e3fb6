package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
)

// MergeDefaults brings the platform's defaults into an object that users edit
// too. applied holds, by key, the digest of the value the platform set last:
// a key that still has it follows the new default; one that a user changed or
// deleted stays as the user left it. It returns the new data and digests.
func MergeDefaults(current, applied, desired map[string]string) (data, digests map[string]string) {
	data, digests = maps.Clone(current), maps.Clone(applied)
	if data == nil {
		data = map[string]string{}
	}
	if digests == nil {
		digests = map[string]string{}
	}
	for k, want := range desired {
		have, present := data[k]
		last, ours := digests[k]
		switch {
		case !ours && present:
			// The user was first.
		case !ours, present && digest(have) == last:
			data[k] = want
			digests[k] = digest(want)
		}
	}
	return data, digests
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
