package forge

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// RequestsOfCommit lists the merge requests that brought a commit, or would:
// those with it among their commits, and the one whose merge made it.
func (s *Service) RequestsOfCommit(ctx context.Context, projectID int64, sha string) ([]delivery.MergeRequest, error) {
	made, _, err := s.store.MergeRequests(ctx, MergeRequestFilter{ProjectIDs: []int64{projectID}, MadeCommit: sha}, 0, 0)
	if err != nil {
		return nil, err
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "for-each-ref", "--format=%(refname:lstrip=2)", "--contains="+sha, "refs/merge-requests/")
	if err != nil {
		return nil, err
	}
	var iids []int64
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "/")
		if iid, err := strconv.ParseInt(name, 10, 64); err == nil {
			iids = append(iids, iid)
		}
	}
	var list []delivery.MergeRequest
	for some := range slices.Chunk(iids, 500) { // the database takes so many at once
		more, _, err := s.store.MergeRequests(ctx, MergeRequestFilter{ProjectIDs: []int64{projectID}, IIDs: some}, 0, 0)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	if list, err = s.notBefore(ctx, projectID, sha, list); err != nil {
		return nil, err
	}
	for _, m := range made {
		if !slices.ContainsFunc(list, func(o delivery.MergeRequest) bool { return o.ID == m.ID }) {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b delivery.MergeRequest) int { return int(b.IID - a.IID) })
	return list, nil
}

// notBefore leaves out the merge requests that were begun on top of a commit.
func (s *Service) notBefore(ctx context.Context, projectID int64, sha string, list []delivery.MergeRequest) ([]delivery.MergeRequest, error) {
	if len(list) == 0 {
		return nil, nil
	}
	var ask bytes.Buffer
	ask.WriteString("^" + sha + "\n")
	for _, m := range list {
		if fullSHA.MatchString(m.BaseSHA) {
			ask.WriteString(m.BaseSHA + "\n")
		}
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), &ask, "rev-list", "--ancestry-path", "--ignore-missing", "--stdin")
	if err != nil {
		return nil, err
	}
	after := map[string]bool{sha: true}
	for line := range strings.Lines(string(out)) {
		after[strings.TrimSpace(line)] = true
	}
	return slices.DeleteFunc(list, func(m delivery.MergeRequest) bool { return after[m.BaseSHA] }), nil
}

// CommitDiscussions lists the threads on the commits of a merge request, in the
// order of the commits.
func (s *Service) CommitDiscussions(ctx context.Context, m delivery.MergeRequest) ([][]Note, error) {
	noted, err := s.store.NotedCommits(ctx, m.ProjectID)
	if err != nil || len(noted) == 0 {
		return nil, err
	}
	commits, err := s.RequestCommits(ctx, m, 250)
	if err != nil {
		return nil, err
	}
	var out [][]Note
	for _, c := range slices.Backward(commits) {
		if !slices.Contains(noted, c.SHA) {
			continue
		}
		list, err := s.Discussions(ctx, m.ProjectID, nil, c.SHA)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}
