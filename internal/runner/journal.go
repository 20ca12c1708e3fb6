package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// entry is what the journal keeps of a job in hand: enough to report it after
// a crash. The file is readable by its owner only, as it holds the job's token.
type entry struct {
	ID    int64  `json:"id"`
	Token string `json:"token"`
}

const entryFile = "job.json"

func (r *Runner) jobDir(id int64) string {
	return filepath.Join(r.config.Dir, "jobs", strconv.FormatInt(id, 10))
}

// record makes the job's folder and journal entry.
func (r *Runner) record(spec *delivery.JobSpec) (dir string, err error) {
	dir = r.jobDir(spec.ID)
	// A folder of the same job is from an attempt that was not accepted.
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("clear job folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("make job folder: %w", err)
	}
	raw, err := json.Marshal(entry{ID: spec.ID, Token: spec.Token})
	if err != nil {
		return "", fmt.Errorf("record job: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, entryFile), raw, 0o600); err != nil {
		return "", fmt.Errorf("record job: %w", err)
	}
	return dir, nil
}

// recover reports the jobs that an earlier process had in hand as failed and
// removes their folders. Jobs whose report cannot be delivered stay in the
// journal.
func (r *Runner) recover(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(r.config.Dir, "jobs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	for _, one := range entries {
		dir := filepath.Join(r.config.Dir, "jobs", one.Name())
		if err := r.recoverJob(ctx, dir); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove job folder: %w", err)
		}
	}
	return nil
}

func (r *Runner) recoverJob(ctx context.Context, dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, entryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // killed between the folder and the entry, before the job was accepted
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	var old entry
	if err := json.Unmarshal(raw, &old); err != nil {
		r.logger.Warn("drop unreadable journal entry", "folder", dir, "error", err)
		return nil
	}
	t, err := openTrace(filepath.Join(dir, "trace"), r.coordinator, old.ID, old.Token, 0, r.config.TraceInterval)
	if err != nil {
		return err
	}
	j := &job{runner: r, spec: &delivery.JobSpec{ID: old.ID, Token: old.Token}, trace: t, dir: dir}
	if err := j.openStreams(nil, nil); err != nil {
		return err
	}
	r.logger.Info("report interrupted job", "job", old.ID)
	j.finish(ctx, &JobError{Reason: ReasonSystem, Message: "the runner was stopped or restarted while the job ran"})
	return t.close()
}
