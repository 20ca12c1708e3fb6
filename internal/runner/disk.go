package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errDiskFull ends the job that takes the most of a disk that is nearly full.
var errDiskFull = &JobError{Reason: ReasonSystem, Err: syscall.ENOSPC}

// diskInterval is between two looks at the disk. A look is one system call.
const diskInterval = 200 * time.Millisecond

// maxReserve is the most that is kept free by default, in bytes.
const maxReserve = 512 << 20

// Usage is implemented by environments that hold files of the job outside of
// its builds folder.
type Usage interface {
	// Used is how many bytes of this host's disk those files take.
	Used(ctx context.Context) (int64, error)
}

// disk is the file system that holds jobs, and what must stay free on it for
// everything else that lives there: the database, repositories, images.
type disk struct {
	dir     string
	reserve int64 // bytes; 0: a twentieth of the disk, at most maxReserve
}

// free are the bytes left for jobs: negative when the reserve is touched.
func (d disk) free() (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(d.dir, &stat); err != nil {
		return 0, fmt.Errorf("look at the disk: %w", err)
	}
	reserve := d.reserve
	if reserve == 0 {
		reserve = min(maxReserve, int64(stat.Blocks)*stat.Bsize/20)
	}
	return int64(stat.Bavail)*stat.Bsize - reserve, nil
}

// watchDisk ends jobs while the disk is too full, the largest first, until ctx
// ends: a job must not take the space that the platform's own data needs.
func (r *Runner) watchDisk(ctx context.Context) {
	failing := false
	for r.sleep(ctx, diskInterval) == nil {
		free, err := r.disk.free()
		if err != nil {
			if !failing {
				r.logger.Error("disk of jobs", "error", err)
			}
			failing = true
			continue
		}
		failing = false
		if free >= 0 {
			continue
		}
		if j := r.largest(ctx); j != nil {
			r.logger.Warn("the disk is full: a job is ended", "job", j.spec.ID, "short of bytes", -free)
			j.drop(errDiskFull)
		}
	}
}

// diskPatience is how long a job waits for the space of jobs that have just
// ended: the container engine frees it a moment later.
const diskPatience = 15 * time.Second

// diskSpace waits until the disk has space for another job.
func (r *Runner) diskSpace(ctx context.Context) error {
	for deadline := r.config.Now().Add(diskPatience); ; {
		free, err := r.disk.free()
		if err != nil || free >= 0 {
			return err
		}
		if r.config.Now().After(deadline) {
			return errDiskFull
		}
		if err := r.sleep(ctx, diskInterval); err != nil {
			return context.Cause(ctx)
		}
	}
}

// largest is the job in hand that takes the most of the disk; nil while one is
// being ended for that, whose space will be free in a moment.
func (r *Runner) largest(ctx context.Context) *job {
	r.mu.Lock()
	jobs := make([]*job, 0, len(r.inHand))
	for j := range r.inHand {
		if errors.Is(context.Cause(j.ctx), errDiskFull) {
			r.mu.Unlock()
			return nil
		}
		jobs = append(jobs, j)
	}
	r.mu.Unlock()
	var found *job
	most := int64(-1)
	for _, j := range jobs {
		if used := j.used(ctx); used > most {
			found, most = j, used
		}
	}
	return found
}

// used is what the job's files take, in bytes. What cannot be read, because the
// job changes it meanwhile, is left out.
func (j *job) used(ctx context.Context) int64 {
	var sum int64
	_ = filepath.WalkDir(j.dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it is gone by now
		}
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += stat.Blocks * 512
			}
		}
		return ctx.Err()
	})
	j.mu.Lock()
	environment := j.environment
	j.mu.Unlock()
	if environment, ok := environment.(Usage); ok {
		used, err := environment.Used(ctx)
		if err != nil {
			j.runner.logger.Warn("size of a job", "job", j.spec.ID, "error", err)
		}
		sum += used
	}
	return sum
}

// makeSpace removes the builds of a job that filled the disk; no process of the
// job runs any more.
func (j *job) makeSpace() {
	for _, dir := range []string{"builds", checkoutDir} {
		if err := os.RemoveAll(filepath.Join(j.dir, dir)); err != nil {
			j.runner.logger.Error("remove files of a job that filled the disk", "job", j.spec.ID, "error", err)
		}
	}
	j.trace.revive()
}

// outOfSpace reports whether a job failed because the disk is full: it said so,
// or its trace or the disk tells.
func (j *job) outOfSpace(err error) bool {
	return isFullDisk(err) || isFullDisk(j.trace.failure())
}
