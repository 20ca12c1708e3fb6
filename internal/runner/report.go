package runner

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// finish writes the job's last words, sends the rest of the trace and reports
// the result. A report that cannot be delivered in time stays in the journal
// only when the process ends before; else the coordinator's own timeout counts.
func (j *job) finish(ctx context.Context, result error) {
	j.trace.force()
	update := delivery.JobUpdate{State: delivery.JobSuccess}
	if result == nil {
		j.log.Notice("Job succeeded")
	} else {
		var system bool
		update.State = delivery.JobFailed
		update.FailureReason, update.ExitCode, system = failure(result)
		if errors.Is(result, context.Canceled) {
			update.FailureReason = ReasonSystem
		}
		message := plainError(result)
		if system {
			j.log.Error("Job failed (system failure): %s", message)
			j.runner.logger.Error("job failed (system failure)", "job", j.spec.ID, "error", result)
		} else {
			j.log.Error("Job failed: %s", message)
		}
	}
	for _, s := range []*stream{j.out, j.errs, j.words} {
		if err := s.Close(); err != nil {
			j.runner.logger.Error("close trace", "job", j.spec.ID, "error", err)
		}
	}
	if err := j.report(ctx, update); err != nil {
		j.runner.logger.Error("report job", "job", j.spec.ID, "error", err)
	}
}

// report delivers the trace and the final update, trying again while the
// coordinator is away.
func (j *job) report(ctx context.Context, update delivery.JobUpdate) error {
	ctx, cancel := context.WithTimeout(ctx, j.runner.config.ReportTimeout)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		_, err := j.trace.flush(ctx)
		if err == nil {
			update.TraceSize, update.TraceChecksum = j.trace.state()
			var ack delivery.JobAck
			ack, err = j.runner.coordinator.UpdateJob(ctx, j.spec.ID, j.spec.Token, update)
			if err == nil && !ack.TraceInvalid {
				return nil
			}
			if err == nil {
				j.trace.sent = 0
				err = errors.New("the coordinator asks for the trace again")
			}
		}
		if kind := delivery.KindOf(err); kind == delivery.Forbidden || kind == delivery.NotFound {
			return err
		}
		if sleepErr := j.runner.sleep(ctx, pause); sleepErr != nil {
			return err
		}
	}
}

// plainError is the sentence of an error for the trace. A full disk is named
// as such wherever it shows.
func plainError(err error) string {
	if isFullDisk(err) {
		return "no space left on the runner's disk: free some space or lower the cache budgets, then retry the job"
	}
	if errors.Is(err, context.Canceled) {
		return "aborted"
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
