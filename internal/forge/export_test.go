package forge

// Names that the tests of package forge_test need.
var (
	ParseSSHCommand = parseSSHCommand
	ParseCommit     = parseCommit
	ParseTree       = parseTree
	MatchPattern    = matchPattern
	SplitGit        = splitGit
	CleanFile       = cleanFile
	QuotePath       = quotePath
	ParseBlame      = parseBlame
	ParseRaw        = parseRaw
)
