package ci

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// workingCopy is what the .git folder says without running git.
type workingCopy struct {
	root          string // folder with .git; "" outside a repository
	branch        string
	sha           string
	defaultBranch string
}

func readWorkingCopy(folder string) workingCopy {
	var w workingCopy
	dir, err := filepath.Abs(folder)
	if err != nil {
		return w
	}
	git := ""
	for ; ; dir = filepath.Dir(dir) {
		candidate := filepath.Join(dir, ".git")
		if info, err := os.Stat(candidate); err == nil {
			w.root, git = dir, candidate
			if !info.IsDir() { // a worktree or submodule: the file names the folder
				git = strings.TrimSpace(strings.TrimPrefix(readText(candidate), "gitdir:"))
				if !filepath.IsAbs(git) {
					git = filepath.Join(dir, git)
				}
			}
			break
		}
		if dir == filepath.Dir(dir) {
			return w
		}
	}
	common := git
	if c := readText(filepath.Join(git, "commondir")); c != "" {
		common = filepath.Join(git, c)
	}
	head := readText(filepath.Join(git, "HEAD"))
	if ref, ok := strings.CutPrefix(head, "ref: "); ok {
		w.branch = strings.TrimPrefix(ref, "refs/heads/")
		w.sha = firstOf(readText(filepath.Join(common, ref)), packedRef(common, ref))
	} else {
		w.sha = head
	}
	w.defaultBranch = strings.TrimPrefix(readText(filepath.Join(common, "refs/remotes/origin/HEAD")), "ref: refs/remotes/origin/")
	return w
}

func readText(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func packedRef(git, ref string) string {
	for line := range strings.Lines(readText(filepath.Join(git, "packed-refs")) + "\n") {
		sha, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && name == ref {
			return sha
		}
	}
	return ""
}

// predefined builds the variables a server would set for the event, as far as a working copy tells.
func predefined(w workingCopy, f *file, facts gitlabci.Context, defaultBranch string) map[string]string {
	folder := firstOf(w.root, f.folder)
	if abs, err := filepath.Abs(folder); err == nil {
		folder = abs
	}
	name := filepath.Base(folder)
	vars := map[string]string{
		"CI": "true", "GITLAB_CI": "true", "CI_SERVER": "yes", "CI_SERVER_NAME": "Slipway", "CI_API_V4_URL": "http://localhost:8080/api/v4",
		"CI_SERVER_URL": "http://localhost:8080", "CI_SERVER_HOST": "localhost", "CI_SERVER_FQDN": "localhost:8080",
		"CI_SERVER_PORT": "8080", "CI_SERVER_PROTOCOL": "http",
		"CI_CONFIG_PATH": filepath.ToSlash(f.root), "CI_DEFAULT_BRANCH": defaultBranch, "CI_PIPELINE_SOURCE": facts.Source,
		"CI_COMMIT_REF_NAME": facts.Ref, "CI_COMMIT_REF_SLUG": gitlabci.Slug(facts.Ref), "CI_COMMIT_SHA": w.sha,
		"CI_COMMIT_SHORT_SHA": w.sha[:min(8, len(w.sha))], "CI_COMMIT_BEFORE_SHA": strings.Repeat("0", 40),
		"CI_COMMIT_REF_PROTECTED": "false", "CI_PROJECT_NAME": name, "CI_PROJECT_TITLE": name,
		"CI_PROJECT_NAMESPACE": "local", "CI_PROJECT_ROOT_NAMESPACE": "local", "CI_PROJECT_PATH": "local/" + name,
		"CI_PROJECT_PATH_SLUG": gitlabci.Slug("local/" + name), "CI_PROJECT_ID": "1", "CI_PROJECT_VISIBILITY": "private",
		"CI_PROJECT_URL": "http://localhost:8080/local/" + name, "CI_PIPELINE_IID": "1",
		"CI_REGISTRY": "localhost:8080", "CI_REGISTRY_IMAGE": "localhost:8080/local/" + strings.ToLower(name),
		"GITLAB_USER_LOGIN": firstOf(os.Getenv("USER"), "root"),
	}
	switch {
	case facts.Tag:
		vars["CI_COMMIT_TAG"] = facts.Ref
	case facts.MergeRequest:
		vars["CI_MERGE_REQUEST_ID"], vars["CI_MERGE_REQUEST_IID"] = "1", "1"
		vars["CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"], vars["CI_MERGE_REQUEST_TARGET_BRANCH_NAME"] = facts.Ref, defaultBranch
		vars["CI_MERGE_REQUEST_REF_PATH"] = "refs/merge-requests/1/head"
		vars["CI_MERGE_REQUEST_EVENT_TYPE"] = "detached"
		vars["CI_MERGE_REQUEST_PROJECT_PATH"], vars["CI_MERGE_REQUEST_SOURCE_PROJECT_PATH"] = "local/"+name, "local/"+name
	default:
		vars["CI_COMMIT_BRANCH"] = facts.Ref
	}
	if facts.Ref == defaultBranch {
		vars["CI_COMMIT_REF_PROTECTED"] = "true"
	}
	for key, value := range commitTexts(w, f.text) {
		vars[key] = value
	}
	return vars
}

// commitTexts asks git for author and message, if the configuration mentions them: most do not, and
// running a program costs more than the whole plan.
func commitTexts(w workingCopy, config []byte) map[string]string {
	keys := []string{"CI_COMMIT_AUTHOR", "CI_COMMIT_TIMESTAMP", "CI_COMMIT_TITLE", "CI_COMMIT_DESCRIPTION", "CI_COMMIT_MESSAGE"}
	wanted := false
	for _, k := range keys {
		wanted = wanted || bytes.Contains(config, []byte(k))
	}
	if w.root == "" || w.sha == "" || !wanted {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "git", "-C", w.root, "log", "-1", "--format=%an <%ae>%x00%cI%x00%s%x00%b%x00%B", w.sha).Output()
	parts := strings.Split(strings.TrimSuffix(string(out), "\n"), "\x00")
	if err != nil || len(parts) != len(keys) {
		return nil
	}
	vars := make(map[string]string, len(keys))
	for i, k := range keys {
		vars[k] = strings.TrimRight(parts[i], "\n")
	}
	return vars
}
