package gitops

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Reversal asks for a commit that takes changes back without rewriting history.
type Reversal struct {
	RepoURL string   // the clone address, as in the Application
	Branch  string   // where the commit goes; "" is the default branch
	Paths   []string // only files below these folders; empty means the whole repository
	Good    string   // the commit whose files are wanted
	Bad     string   // the commit that is taken back; newer than Good
	Message string
}

// Reverter makes the commit in the forge, which checks that the caller may
// push. The contract: on Branch ("" is the default branch), each file below Paths that differs between Good and Bad becomes as it is in
// Good; everything else, newer commits included, stays. It returns the new
// commit. It is a Conflict when such a file changed again after Bad, and
// Invalid when there is nothing to take back.
type Reverter interface {
	Revert(ctx context.Context, r Reversal, by delivery.Identity) (commit string, err error)
}

// Revert is the rollback under automated sync: it commits the state of a
// history entry over the newest one, so that git stays the truth. historyID 0
// takes the entry before the current one. It returns the new commit.
func (c *Client) Revert(ctx context.Context, r Reverter, name string, historyID int64, by delivery.Identity) (string, error) {
	a, err := c.Get(ctx, name)
	if err != nil {
		return "", err
	}
	plan, err := PlanReversal(a, historyID)
	if err != nil {
		return "", err
	}
	return r.Revert(ctx, plan, by)
}

// PlanReversal says which commits a Revert would take back.
func PlanReversal(a *Application, historyID int64) (Reversal, error) {
	if len(a.Sources) != 1 || a.Sources[0].Chart != "" {
		return Reversal{}, delivery.Errorf(delivery.Invalid, "Application %s has several sources or a chart; revert in the repository that changed.", a.Name)
	}
	source := a.Sources[0]
	if len(a.History) == 0 {
		return Reversal{}, delivery.Errorf(delivery.Conflict, "Application %s has not been synced yet; there is nothing to go back to.", a.Name)
	}
	// The last revision that was synced, not the one compared with: commits
	// that change nothing here move only the latter. A sync that waits for a
	// version to become healthy, or gave that up, is not in the history.
	bad := a.History[0].Revision
	good := ""
	if o := a.Operation; o != nil && o.Revision != "" && o.Revision != bad && o.Phase != "Succeeded" && o.Started.After(a.History[0].Deployed) {
		bad = o.Revision
	}
	for _, h := range a.History {
		switch {
		case h.Source.RepoURL != "" && h.Source.RepoURL != source.RepoURL:
			// Another repository's commit says nothing about this one.
		case historyID != 0 && h.ID == historyID, historyID == 0 && h.Revision != bad:
			good = h.Revision
		}
		if good != "" {
			break
		}
	}
	switch {
	case good == "" && historyID != 0:
		return Reversal{}, delivery.Errorf(delivery.NotFound, "Application %s has no history entry %d of this repository.", a.Name, historyID)
	case good == "" || good == bad:
		return Reversal{}, delivery.Errorf(delivery.Conflict, "Application %s is at its first revision; there is nothing to go back to.", a.Name)
	}
	return Reversal{
		RepoURL: source.RepoURL, Branch: branchOf(source.TargetRevision), Paths: a.ManifestPaths, Good: good, Bad: bad,
		Message: fmt.Sprintf("Revert %s to %s\n\nThis takes back what %s changed since; everything else stays.\n", a.Name, short(good), short(bad)),
	}, nil
}

// SyncBegan returns when the newest sync of a revision began that changed to
// it; the zero time where it is not known.
func (a *Application) SyncBegan(revision string) time.Time {
	var began time.Time
	if o := a.Operation; o != nil && o.Revision == revision {
		began = o.Started
	}
	for _, h := range a.History {
		if h.Revision != revision {
			if began.IsZero() {
				continue
			}
			break
		}
		began = h.Started
		if began.IsZero() {
			began = h.Deployed
		}
	}
	return began
}

// branchOf maps an Application's target to a branch; "" is the default branch.
func branchOf(target string) string {
	if target == "HEAD" {
		return ""
	}
	return strings.TrimPrefix(target, "refs/heads/")
}

func short(sha string) string {
	if len(sha) > 8 {
		return sha[:8]
	}
	return sha
}
