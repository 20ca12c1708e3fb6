package runner

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// transferAttempts is how often an upload or download is tried while the
// coordinator is away, as in the official runner's helper.
const transferAttempts = 3

// downloadArtifacts runs the download_artifacts stage.
func (j *job) downloadArtifacts(ctx context.Context) error {
	for _, dependency := range j.spec.Dependencies {
		if dependency.ArtifactsFile.Filename == "" {
			continue
		}
		j.log.Notice("Downloading artifacts for %s (%d)...", dependency.Name, dependency.ID)
		var err error
		for attempt := range transferAttempts {
			if attempt > 0 {
				j.helper.warn("Retrying... %v", delivery.UserMessage(err))
				if err := j.runner.sleep(ctx, time.Second<<attempt); err != nil {
					return err
				}
			}
			if err = j.downloadArtifact(ctx, dependency); delivery.KindOf(err) != delivery.Unavailable {
				break
			}
		}
		if err != nil {
			j.helper.fail("Downloading artifacts from coordinator... %s", delivery.UserMessage(err))
			return &JobError{Reason: ReasonScript, Message: "exit code 1", ExitCode: 1, Err: nil}
		}
		j.helper.info("Downloading artifacts from coordinator... ok  id=%d", dependency.ID)
	}
	return nil
}

func (j *job) downloadArtifact(ctx context.Context, d delivery.JobDependency) error {
	artifact, err := j.runner.coordinator.DownloadArtifact(ctx, d.ID, d.Token)
	if err != nil {
		return err
	}
	defer artifact.Body.Close()
	file, err := os.CreateTemp(j.dir, "download-*")
	if err != nil {
		return fmt.Errorf("store artifact: %w", err)
	}
	defer func() { _ = errors.Join(file.Close(), os.Remove(file.Name())) }() // the job's folder goes away as a whole
	size, err := io.Copy(file, until(ctx, artifact.Body))
	if err != nil {
		return fmt.Errorf("store artifact: %w", err)
	}
	archive, err := zip.NewReader(file, size)
	if err != nil {
		return delivery.Errorf(delivery.Invalid, "the artifacts of %s are no zip archive: %w", d.Name, err)
	}
	if err := extractZip(ctx, archive, j.project); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return delivery.Errorf(delivery.Invalid, "%w", err)
	}
	return nil
}

// uploadArtifacts runs the upload_artifacts stage. A declared upload that the
// coordinator refuses fails the job; files that do not exist do not.
func (j *job) uploadArtifacts(ctx context.Context, succeeded bool) error {
	for _, artifact := range j.spec.Artifacts {
		if !due(artifact.When, succeeded) || len(artifact.Paths) == 0 && !artifact.Untracked {
			continue
		}
		j.log.Notice("Uploading artifacts...")
		if err := j.uploadArtifact(ctx, artifact); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) uploadArtifact(ctx context.Context, a delivery.JobArtifact) error {
	collected := newCollection(j.project, j.projectDir, j.helper, j.expandAll(a.Exclude))
	names := collected.collect(j.expandAll(a.Paths), a.Untracked)
	if len(names) == 0 {
		j.helper.fail("No files to upload")
		return nil
	}
	format, kind := a.Format, a.Type
	if format == "" {
		format = "zip"
	}
	if kind == "" {
		kind = "archive"
	}
	upload := delivery.ArtifactUpload{Type: kind, Format: format, ExpireIn: j.variables.Expand(a.ExpireIn)}
	var write func(context.Context, io.Writer, *os.Root, []string) error
	name := artifactName(j.variables.Expand(a.Name))
	switch format {
	case "zip":
		write, upload.Filename = writeZip, name+".zip"
	case "gzip":
		write, upload.Filename = writeGzip, name+".gz"
		if a.Name == "" {
			upload.Filename = path.Base(names[0]) + ".gz"
		}
	case "raw":
		write, upload.Filename = writeRaw, path.Base(names[0])
	default:
		return &JobError{Reason: ReasonConfiguration, Message: fmt.Sprintf("unknown artifact format %q", format)}
	}
	var err error
	for attempt := range transferAttempts {
		if attempt > 0 {
			j.helper.warn("Retrying... %s", delivery.UserMessage(err))
			if err := j.runner.sleep(ctx, time.Second<<attempt); err != nil {
				return err
			}
		}
		if err = j.send(ctx, upload, names, write); delivery.KindOf(err) != delivery.Unavailable {
			break
		}
	}
	if err != nil {
		j.helper.fail("Uploading artifacts as %q to coordinator... %s", kind, delivery.UserMessage(err))
		return &JobError{Reason: ReasonScript, Message: "exit code 1", ExitCode: 1}
	}
	j.helper.info("Uploading artifacts as %q to coordinator... 201 Created  id=%d", kind, j.spec.ID)
	return nil
}

// send streams an archive to the coordinator while it is written.
func (j *job) send(ctx context.Context, upload delivery.ArtifactUpload, names []string, write func(context.Context, io.Writer, *os.Root, []string) error) error {
	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(ctx, writer, j.project, names)
		writer.CloseWithError(err) // always nil
		written <- err
	}()
	err := j.runner.coordinator.UploadArtifact(ctx, j.spec.ID, j.spec.Token, upload, reader)
	reader.CloseWithError(err) // always nil
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, io.ErrClosedPipe) && (err == nil || !errors.Is(writeErr, err)) {
		return writeErr
	}
	return err
}

// artifactName is the archive's base name: GitLab's default where none is
// given, and no path.
func artifactName(name string) string {
	name = filepath.Base(strings.ReplaceAll(name, "\\", "/"))
	if name == "." || name == "/" {
		return "artifacts"
	}
	return name
}

func (j *job) expandAll(texts []string) []string {
	expanded := make([]string, len(texts))
	for i, text := range texts {
		expanded[i] = j.variables.Expand(text)
	}
	return expanded
}
