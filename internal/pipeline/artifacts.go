package pipeline

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// Limits of dotenv reports, GitLab's defaults.
const (
	maxDotenvSize      = 5 << 10
	maxDotenvVariables = 20
)

// UploadArtifact implements delivery.Coordinator. The file is stored by its
// content, so that equal files take their space once.
func (e *Engine) UploadArtifact(ctx context.Context, jobID int64, token string, a delivery.ArtifactUpload, body io.Reader) error {
	r, _, err := e.lookup(ctx, jobID, token)
	if err != nil {
		return err
	}
	if r == nil {
		return gone()
	}
	row := Artifact{JobID: jobID, PipelineID: r.pipelineID, ProjectID: r.projectID, Type: a.Type, Format: a.Format, Filename: path.Base("/" + a.Filename)}
	setDefault(&row.Type, "archive")
	setDefault(&row.Format, map[string]string{"archive": "zip"}[row.Type])
	setDefault(&row.Format, "raw")
	if row.ExpireAt, err = e.expiry(a.ExpireIn); err != nil {
		return err
	}
	temp, err := e.receive(&row, body)
	if err != nil {
		return err
	}
	defer os.Remove(temp) // renamed away when all went well
	var dotenv []SealedVariable
	if row.Type == "dotenv" {
		if dotenv, err = e.readDotenv(temp); err != nil {
			return err
		}
	}
	e.files.Lock()
	err = e.keep(ctx, temp, &row, dotenv)
	e.files.Unlock()
	if err != nil {
		return err
	}
	e.parseReport(ctx, &row)
	return nil
}

// expiry computes when an artifact ends; zero for never.
func (e *Engine) expiry(text string) (time.Time, error) {
	d := e.cfg.ArtifactExpiry
	if text != "" {
		if strings.EqualFold(strings.TrimSpace(text), "never") {
			return time.Time{}, nil
		}
		var err error
		if d, err = gitlabci.ParseDuration(text); err != nil {
			return time.Time{}, delivery.Errorf(delivery.Invalid, "expire_in %q: %v", text, err)
		}
	}
	if d <= 0 {
		return time.Time{}, nil
	}
	return e.clock.Now().Add(d), nil
}

// receive streams an upload into a temporary file.
func (e *Engine) receive(row *Artifact, body io.Reader) (string, error) {
	dir := filepath.Join(e.cfg.DataDir, "artifacts", "incoming")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("pipeline: artifact: %w", err)
	}
	f, err := os.CreateTemp(dir, "upload-")
	if err != nil {
		return "", fmt.Errorf("pipeline: artifact: %w", err)
	}
	sum := sha256.New()
	row.Size, err = io.Copy(io.MultiWriter(f, sum), io.LimitReader(body, e.cfg.ArtifactLimit+1))
	switch {
	case err != nil:
		err = &delivery.Error{Kind: delivery.Unavailable, Message: "The upload broke off.", Err: err}
	case row.Size > e.cfg.ArtifactLimit:
		err = delivery.Errorf(delivery.TooLarge, "The artifact is larger than %d bytes.", e.cfg.ArtifactLimit)
	default:
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	row.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return f.Name(), nil
}

// keep moves the file to its place and stores the row. e.files is held.
func (e *Engine) keep(ctx context.Context, temp string, row *Artifact, dotenv []SealedVariable) error {
	place := e.artifactPath(row.SHA256)
	if _, err := os.Stat(place); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
			return fmt.Errorf("pipeline: artifact: %w", err)
		}
		if err := os.Rename(temp, place); err != nil {
			return fmt.Errorf("pipeline: artifact: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("pipeline: artifact: %w", err)
	}
	return e.store.Update(ctx, func(tx Tx) error {
		if dotenv != nil {
			if err := tx.SetDotenv(row.JobID, dotenv); err != nil {
				return err
			}
		}
		return tx.InsertArtifact(row)
	})
}

// readDotenv parses a dotenv report: KEY=value lines, as GitLab takes them.
func (e *Engine) readDotenv(file string) ([]SealedVariable, error) {
	text, err := readReport(file, maxDotenvSize)
	if err != nil {
		return nil, err
	}
	vars, err := parseDotenv(text)
	if err != nil {
		return nil, err
	}
	return e.sealValues(vars), nil
}

// parseDotenv reads KEY=value lines. Quotes around a value are dropped, and
// blank lines left out.
func parseDotenv(text []byte) ([]VariableValue, error) {
	vars := []VariableValue{}
	for _, line := range strings.Split(string(text), "\n") {
		line = strings.TrimRight(line, "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if !ok || !validKey(key) {
			return nil, delivery.Errorf(delivery.Invalid, "The dotenv report is not valid: each line must be KEY=value.")
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		vars = append(vars, VariableValue{Key: key, Value: value})
	}
	if len(vars) > maxDotenvVariables {
		return nil, delivery.Errorf(delivery.Invalid, "The dotenv report has %d variables; at most %d are allowed.", len(vars), maxDotenvVariables)
	}
	return vars, nil
}

// readReport reads a report file, unpacked when it is gzip. More than limit
// bytes are an error of kind TooLarge.
func readReport(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("pipeline: report: %w", err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	var src io.Reader = in
	if head, err := in.Peek(2); err == nil && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, delivery.Errorf(delivery.Invalid, "The report is not a valid gzip file.")
		}
		src = z
	}
	text, err := io.ReadAll(io.LimitReader(src, limit+1))
	if err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "The report cannot be unpacked: %v", err)
	}
	if int64(len(text)) > limit {
		return nil, delivery.Errorf(delivery.TooLarge, "The report is larger than %d bytes.", limit)
	}
	return text, nil
}

// DownloadArtifact implements delivery.Coordinator: token is that of a running
// job which may read the artifacts of job jobID.
func (e *Engine) DownloadArtifact(ctx context.Context, jobID int64, token string) (delivery.ArtifactFile, error) {
	if _, _, err := e.lookup(ctx, jobID, token); err == nil { // its own
		return e.OpenArtifact(ctx, jobID, "archive")
	}
	claim, err := e.JobByToken(ctx, token)
	if delivery.IsNotFound(err) {
		e.mu.Lock() // the token of a job that is about to be accepted
		for id, o := range e.offers {
			if sameHash(o.hash, hashToken(token)) {
				claim, err = delivery.JobClaim{JobID: id, ProjectID: o.queued.projectID}, nil
			}
		}
		e.mu.Unlock()
	}
	if err != nil {
		return delivery.ArtifactFile{}, gone()
	}
	var from Job
	if err := e.store.View(ctx, func(tx Tx) error {
		var err error
		from, err = tx.Job(jobID)
		return err
	}); err != nil {
		return delivery.ArtifactFile{}, err
	}
	project, err := e.cfg.Projects.Project(ctx, from.ProjectID)
	if err != nil {
		return delivery.ArtifactFile{}, err
	}
	may, err := e.jobMayRead(ctx, claim.UserID, claim.ProjectID, project)
	if err != nil {
		return delivery.ArtifactFile{}, err
	}
	if !may {
		return delivery.ArtifactFile{}, gone()
	}
	return e.OpenArtifact(ctx, jobID, "archive")
}

// jobMayRead reports whether a job may read a project's artifacts: those of its
// own and of public projects, and of others that its user may read as Reporter
// and that have the job's project on their job token allowlist.
func (e *Engine) jobMayRead(ctx context.Context, userID, jobProjectID int64, project delivery.Project) (bool, error) {
	if project.ID == jobProjectID || project.Visibility == delivery.Public {
		return true, nil
	}
	role, err := e.cfg.Projects.JobRoleIn(ctx, userID, jobProjectID, project.ID)
	return role >= delivery.Reporter, err
}

// OpenArtifact opens a job's artifact of a type; it is an error of kind
// NotFound when there is none, or it has expired and was deleted.
func (e *Engine) OpenArtifact(ctx context.Context, jobID int64, kind string) (delivery.ArtifactFile, error) {
	a, err := e.artifact(ctx, jobID, kind)
	if err != nil {
		return delivery.ArtifactFile{}, err
	}
	f, err := os.Open(e.artifactPath(a.SHA256))
	if err != nil {
		return delivery.ArtifactFile{}, fmt.Errorf("pipeline: artifact %d: %w", a.ID, err)
	}
	return delivery.ArtifactFile{Filename: a.Filename, Size: a.Size, Body: f}, nil
}

func (e *Engine) artifact(ctx context.Context, jobID int64, kind string) (Artifact, error) {
	var found Artifact
	err := e.store.View(ctx, func(tx Tx) error {
		list, err := tx.Artifacts(jobID)
		for _, a := range list {
			if a.Type == kind {
				found = a
			}
		}
		return err
	})
	if err != nil {
		return found, err
	}
	if found.ID == 0 {
		return found, &delivery.Error{Kind: delivery.NotFound, Message: "Artifacts Not Found"}
	}
	return found, nil
}

// DeleteArtifacts deletes a job's artifacts, with all also its reports.
func (e *Engine) DeleteArtifacts(ctx context.Context, jobID int64) error {
	var files []string
	err := e.store.Update(ctx, func(tx Tx) error {
		list, err := tx.Artifacts(jobID)
		if err != nil {
			return err
		}
		files, err = deleteRows(tx, list)
		return err
	})
	if err != nil {
		return err
	}
	e.removeUnused(ctx, files)
	return nil
}

// deleteRows deletes the rows of artifacts and returns the files they named.
func deleteRows(tx Tx, list []Artifact) (files []string, err error) {
	for _, a := range list {
		files = append(files, a.SHA256)
		if err := tx.DeleteArtifact(a.ID); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// KeepArtifacts makes a job's artifacts stay for good.
func (e *Engine) KeepArtifacts(ctx context.Context, jobID int64) error {
	return e.store.Update(ctx, func(tx Tx) error {
		list, err := tx.Artifacts(jobID)
		if err != nil {
			return err
		}
		for i := range list {
			list[i].ExpireAt = time.Time{}
			if err := tx.UpdateArtifact(&list[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeUnused deletes stored files that no row names any more.
func (e *Engine) removeUnused(ctx context.Context, files []string) {
	e.files.Lock()
	defer e.files.Unlock()
	for _, sum := range files {
		uses := 0
		err := e.store.View(ctx, func(tx Tx) error {
			var err error
			uses, err = tx.ArtifactUses(sum)
			return err
		})
		if err == nil && uses == 0 {
			err = removeFile(e.artifactPath(sum))
		}
		if err != nil {
			e.log.Error("artifact not removed", "file", sum, "err", err)
		}
	}
}

// expireArtifacts deletes artifacts whose time is over. Those of the newest
// successful pipeline of a ref stay, as in GitLab.
func (e *Engine) expireArtifacts(ctx context.Context) error {
	for {
		var files []string
		err := e.store.Update(ctx, func(tx Tx) error {
			list, err := tx.ExpiredArtifacts(e.clock.Now(), 200)
			if err != nil {
				return err
			}
			files, err = deleteRows(tx, list)
			return err
		})
		if err != nil || len(files) == 0 {
			return err
		}
		e.removeUnused(ctx, files)
	}
}
