package forge

import (
	"bufio"
	"bytes"
	"context"
)

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
	SplitSigned     = splitSigned
	CheckSSH        = checkSSH
	ReadPGP         = readPGP
	ReadLFS         = readLFS
)

// LFSBatch is the request of a batch.
type LFSBatch = lfsBatch

// ReadQuestion reads what a hook asks, as it arrives from git.
func ReadQuestion(text []byte) error {
	_, err := (&hookTalk{in: bufio.NewReader(bytes.NewReader(text))}).read()
	return err
}

// UseOldMerge makes the service merge as with a git before 2.38.
func (s *Service) UseOldMerge() { s.git.minor = mergeTreeGit - 1 }

// WriteGraphsAtOnce lets a push have its commit graph without a delay.
func (s *Service) WriteGraphsAtOnce() { s.graphs.delay = 0 }

// MergeTree merges two commits in memory.
var MergeTree = (*Service).mergeTree

// FetchLFS fetches the LFS objects of all refs from an address.
func (s *Service) FetchLFS(ctx context.Context, projectID int64, address string) error {
	l, err := s.lfsOf(address, "", "")
	if err != nil {
		return err
	}
	defer l.close()
	return s.fetchLFS(ctx, projectID, l, nil, nil)
}
