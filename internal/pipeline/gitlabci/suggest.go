package gitlabci

import "github.com/slipwayhq/slipway/internal/spelling"

// didYouMean is what ends a message about a word that is not known.
func didYouMean(word string, candidates []string) string {
	return spelling.DidYouMean(word, candidates)
}
