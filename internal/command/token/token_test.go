package token

import "testing"

// The platform revokes tokens of the name of its own, at every start.
func TestDefaultNameIsNotThePlatforms(t *testing.T) {
	t.Parallel()
	f := create(nil).Flags().Lookup("name")
	if f == nil || f.DefValue == "" || f.DefValue == "command line" {
		t.Errorf("a token is called %+v", f)
	}
}
