package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/index"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Repositories finds repositories that lie on this host's disk.
type Repositories interface {
	// GitDir returns the bare repository of a project. An error of kind
	// NotFound means that it is elsewhere and must be fetched by its URL.
	GitDir(ctx context.Context, projectID int64) (string, error)
}

// Ways to get the sources: the variable GIT_STRATEGY.
const (
	gitFetch = "fetch"
	gitClone = "clone"
	gitNone  = "none"
	gitEmpty = "empty"
)

// sources checks out the job's commit into the project folder.
//
// git runs on the host, with the runner's rights, and obeys what it finds in a
// repository: filters, attributes, links. Containers of the job that run
// meanwhile, its services, see the builds folder. So git works in a folder that
// only the host sees, and what it made is then moved into the builds folder;
// after that git is not run on the host any more.
type sources struct {
	job      *job
	root     *os.Root // the job's folder on the host, which no container sees
	out      io.Writer
	hostPath string // of the checkout while it is made
	quiet    bool   // ignored flags are not told: get_sources has done, or will do so
}

// checkoutDir is where sources are made, below the job's folder.
const checkoutDir = "sources"

func (j *job) sources(out io.Writer, quiet bool) *sources {
	return &sources{job: j, root: j.home, out: out, hostPath: filepath.Join(j.dir, checkoutDir), quiet: quiet}
}

// get runs the get_sources stage.
func (s *sources) get(ctx context.Context) error {
	strategy := s.job.variables.Get("GIT_STRATEGY")
	switch strategy {
	case "":
		if strategy = gitClone; s.job.spec.AllowGitFetch {
			strategy = gitFetch
		}
	case gitFetch, gitClone, gitEmpty, gitNone:
	default:
		return &JobError{Reason: ReasonConfiguration, Message: fmt.Sprintf("unknown GIT_STRATEGY %q: use fetch, clone, none or empty", strategy)}
	}
	if err := s.job.makeProjectFolder(); err != nil {
		return err
	}
	if err := s.job.runHook(ctx, "pre_get_sources_script"); err != nil {
		return err
	}
	var err error
	switch strategy {
	case gitNone:
		s.job.log.Notice("Skipping Git repository setup")
	case gitEmpty:
		s.job.log.Notice("Skipping Git repository setup and creating an empty build directory")
	default:
		err = s.fetch(ctx)
	}
	if err == nil && strategy != gitNone && strategy != gitEmpty {
		if err = s.checkout(ctx); err == nil {
			err = s.job.publishSources()
		}
	}
	if err != nil {
		return err
	}
	return s.job.runHook(ctx, "post_get_sources_script")
}

// fetch makes a fresh repository with the job's refs, straight from the
// repository on disk where there is one.
func (s *sources) fetch(ctx context.Context) error {
	info := s.job.spec.GitInfo
	if info.Depth > 0 {
		s.job.log.Notice("Fetching changes with git depth set to %d...", info.Depth)
	} else {
		s.job.log.Notice("Fetching changes...")
	}
	if early := s.job.early; early != nil { // begun while the environment was made
		<-early.done
		s.job.early = nil
		if early.err == nil || ctx.Err() != nil {
			s.fetchFlags() // which tells what of them is ignored
			fmt.Fprintf(s.out, "Initialized empty Git repository in %s/.git/\n", s.job.projectDir)
			s.job.log.Notice("Created fresh repository.")
			if _, err := s.out.Write(early.out.Bytes()); err != nil {
				return fmt.Errorf("write trace: %w", err)
			}
			return early.err
		}
		// What went wrong is tried once more and shown.
	}
	if err := s.init(ctx); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "Initialized empty Git repository in %s/.git/\n", s.job.projectDir)
	s.job.log.Notice("Created fresh repository.")
	from, local, err := s.origin(ctx)
	if err != nil {
		return err
	}
	args := s.fetchArguments(from)
	if local {
		return s.git(ctx, args...)
	}
	return s.job.environment.InNetwork(func() error { return s.git(ctx, args...) })
}

// fetchArguments are those of the git that fetches the job's refs.
func (s *sources) fetchArguments(from string) []string {
	info := s.job.spec.GitInfo
	args := []string{"-c", "gc.auto=0", "-c", "maintenance.auto=0", "-c", "fetch.writeCommitGraph=false",
		"fetch", "--no-recurse-submodules", "--no-write-fetch-head"}
	if info.Depth > 0 {
		args = append(args, "--depth", strconv.Itoa(info.Depth))
	}
	args = append(args, s.fetchFlags()...)
	args = append(args, "--", from)
	return append(args, info.Refspecs...)
}

// init makes an empty repository with its remote. One of the usual format is
// written as files, which spares a process (gitrepository-layout(5)).
func (s *sources) init(ctx context.Context) error {
	if err := s.root.RemoveAll(checkoutDir); err != nil { // of a first attempt
		return fmt.Errorf("remove old repository: %w", err)
	}
	err := s.root.Mkdir(checkoutDir, 0o777)
	if err == nil {
		err = s.root.Chmod(checkoutDir, 0o777) // every user of the job's image may write
	}
	if err != nil {
		return fmt.Errorf("make repository: %w", err)
	}
	format := s.job.spec.GitInfo.ObjectFormat
	if format != "" && format != "sha1" {
		if err := s.git(ctx, "init", "--quiet", "--template=", "--initial-branch=none", "--object-format="+format, "."); err != nil {
			return err
		}
		return s.writeRemote()
	}
	dir := path.Join(checkoutDir, ".git")
	for _, sub := range []string{"", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags"} {
		err := s.root.Mkdir(path.Join(dir, sub), 0o777)
		if err == nil {
			err = s.root.Chmod(path.Join(dir, sub), 0o777)
		}
		if err != nil {
			return fmt.Errorf("make repository: %w", err)
		}
	}
	for name, text := range map[string]string{"HEAD": "ref: refs/heads/none\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"} {
		err := s.root.WriteFile(path.Join(dir, name), []byte(text), 0o666)
		if err == nil {
			err = s.root.Chmod(path.Join(dir, name), 0o666)
		}
		if err != nil {
			return fmt.Errorf("make repository: %w", err)
		}
	}
	return s.writeRemote()
}

// earlyFetch is a fetch that runs while the job's environment is made. It is
// shown in its place of the trace.
type earlyFetch struct {
	done chan struct{}
	out  bytes.Buffer
	err  error
}

// fetchEarly begins to fetch the sources before there is an environment, where
// that needs nothing of it: from a repository on this disk, without a hook that
// runs before.
func (j *job) fetchEarly(ctx context.Context) {
	switch strategy := j.variables.Get("GIT_STRATEGY"); {
	case strategy != "" && strategy != gitFetch && strategy != gitClone:
		return
	}
	for _, hook := range j.spec.Hooks {
		if hook.Name == "pre_get_sources_script" {
			return
		}
	}
	early := &earlyFetch{done: make(chan struct{})}
	s := j.sources(&early.out, true)
	from, local, err := s.origin(ctx)
	if err != nil || !local {
		return // get_sources tells
	}
	j.early = early
	go func() {
		defer close(early.done)
		if early.err = s.init(ctx); early.err == nil {
			early.err = s.git(ctx, s.fetchArguments(from)...)
		}
	}()
}

// fetchFlags are the harmless ones of GIT_FETCH_EXTRA_FLAGS: git runs on the
// host, where an option such as --upload-pack would run any command.
func (s *sources) fetchFlags() []string {
	wanted := s.job.variables.Get("GIT_FETCH_EXTRA_FLAGS")
	if wanted == "" {
		return []string{"--prune", "--quiet"}
	}
	return s.allowed("GIT_FETCH_EXTRA_FLAGS", wanted,
		"--prune", "-p", "--quiet", "-q", "--tags", "-t", "--no-tags", "--force", "-f", "--verbose", "-v", "--progress", "--prune-tags", "none")
}

func (s *sources) allowed(variable, flags string, known ...string) []string {
	var allowed []string
	for _, flag := range strings.Fields(flags) {
		switch {
		case flag == "none":
		case slices.Contains(known, flag):
			allowed = append(allowed, flag)
		case s.quiet:
		default:
			s.job.log.Warn("%s: %s is ignored by this runner", variable, flag)
		}
	}
	return allowed
}

// origin is where to fetch from: the bare repository on disk, or the URL with
// the job's credentials.
func (s *sources) origin(ctx context.Context) (from string, local bool, err error) {
	if repositories := s.job.runner.config.Repositories; repositories != nil {
		dir, err := repositories.GitDir(ctx, s.job.spec.JobInfo.ProjectID)
		if err == nil {
			return dir, true, nil
		}
		if !delivery.IsNotFound(err) {
			return "", false, fmt.Errorf("find repository: %w", err)
		}
	}
	// The configuration's insteadOf adds the credentials.
	return withoutUser(s.job.spec.GitInfo.RepoURL), false, nil
}

// writeRemote writes the remote "origin" into the configuration as a file, so
// that the token is in no process's arguments.
func (s *sources) writeRemote() error {
	file, err := s.root.OpenFile(path.Join(checkoutDir, ".git", "config"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("configure repository: %w", err)
	}
	remote := withUser(s.job.spec.GitInfo.RepoURL, "gitlab-ci-token", s.job.spec.Token)
	_, err = fmt.Fprintf(file, "[remote \"origin\"]\n\turl = %s\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n", remote)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("configure repository: %w", err)
	}
	return nil
}

// checkout puts the commit into the folder, then submodules and LFS files.
func (s *sources) checkout(ctx context.Context) error {
	info := s.job.spec.GitInfo
	if value := s.job.variables.Get("GIT_CHECKOUT"); value != "" && !s.job.variables.Bool("GIT_CHECKOUT") {
		s.job.log.Notice("Skipping Git checkout")
	} else {
		s.job.log.Notice("Checking out %s as detached HEAD (ref is %s)...", info.SHA[:min(8, len(info.SHA))], info.Ref)
		if err := s.git(ctx, "-c", "submodule.recurse=false", "checkout", "-f", "-q", "--detach", info.SHA); err != nil {
			return err
		}
		if err := s.largeFiles(ctx); err != nil {
			return err
		}
		fmt.Fprintln(s.out)
	}
	return s.submodules(ctx)
}

// submodules runs what GIT_SUBMODULE_STRATEGY asks for, in the job's network
// and with the job's credentials for this platform.
func (s *sources) submodules(ctx context.Context) error {
	strategy := s.job.variables.Get("GIT_SUBMODULE_STRATEGY")
	recursive := strategy == "recursive"
	switch strategy {
	case "", "none":
		s.job.log.Notice("Skipping Git submodules setup")
		return nil
	case "normal", "recursive":
	default:
		return &JobError{Reason: ReasonConfiguration, Message: fmt.Sprintf("unknown GIT_SUBMODULE_STRATEGY %q: use none, normal or recursive", strategy)}
	}
	depth := s.job.spec.GitInfo.Depth
	if given, err := strconv.Atoi(s.job.variables.Get("GIT_SUBMODULE_DEPTH")); err == nil {
		depth = given
	}
	words, suffix := "Updating/initializing submodules", "..."
	update := []string{"submodule", "update", "--init"}
	if recursive {
		words += " recursively"
		update = append(update, "--recursive")
	}
	if depth > 0 {
		suffix = fmt.Sprintf(" with git depth set to %d...", depth)
		update = append(update, "--depth", strconv.Itoa(depth))
	}
	s.job.log.Notice("%s%s", words, suffix)
	update = append(update, s.allowed("GIT_SUBMODULE_UPDATE_FLAGS", s.job.variables.Get("GIT_SUBMODULE_UPDATE_FLAGS"),
		"--remote", "--force", "-f", "--merge", "--rebase", "--recommend-shallow", "--no-recommend-shallow", "--single-branch", "--no-single-branch")...)
	if paths := strings.Fields(s.job.variables.Get("GIT_SUBMODULE_PATHS")); len(paths) > 0 {
		update = append(append(update, "--"), paths...)
	}
	err := s.job.environment.InNetwork(func() error { return s.git(ctx, update...) })
	if err != nil {
		s.job.log.Warn("Updating submodules failed. Retrying...")
		err = s.job.environment.InNetwork(func() error { return s.git(ctx, update...) })
	}
	if err == nil {
		s.job.log.Notice("Updated submodules")
	}
	return err
}

// largeFiles replaces LFS pointers when the repository uses LFS.
func (s *sources) largeFiles(ctx context.Context) error {
	if s.job.variables.Bool("GIT_LFS_SKIP_SMUDGE") {
		return nil
	}
	if uses, err := s.usesLargeFiles(); err != nil || !uses {
		return err
	}
	if _, err := exec.LookPath("git-lfs"); err != nil {
		s.job.log.Warn("The repository uses Git LFS, but git-lfs is not installed on the runner's host: files stay pointers")
		return nil
	}
	endpoint := strings.TrimSuffix(withoutUser(s.job.spec.GitInfo.RepoURL), ".git") + ".git/info/lfs"
	return s.job.environment.InNetwork(func() error {
		// The host's configuration, which would name the filters, is not read;
		// without them git-lfs leaves the files as they are.
		return s.git(ctx, "-c", "lfs.url="+endpoint, "-c", "lfs.locksverify=false", "-c", "filter.lfs.clean=git-lfs clean -- %f",
			"-c", "filter.lfs.smudge=git-lfs smudge -- %f", "-c", "filter.lfs.process=git-lfs filter-process", "-c", "filter.lfs.required=true", "lfs", "pull")
	})
}

// usesLargeFiles reports whether a file of attributes, in whatever folder, names
// the filter of LFS.
func (s *sources) usesLargeFiles() (bool, error) {
	names := []string{".gitattributes"}
	raw, err := s.root.ReadFile(path.Join(checkoutDir, ".git", "index"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read git index: %w", err)
	}
	// Most repositories have none in a subfolder; only then the index is parsed
	// (gitformat-index(5): names end with a zero byte).
	if bytes.Contains(raw, []byte("/.gitattributes\x00")) {
		var parsed index.Index
		if err := index.NewDecoder(bytes.NewReader(raw)).Decode(&parsed); err != nil {
			return false, fmt.Errorf("read git index: %w", err)
		}
		for _, entry := range parsed.Entries {
			if path.Base(entry.Name) == ".gitattributes" {
				names = append(names, entry.Name)
			}
		}
	}
	for _, name := range names {
		text, err := s.root.ReadFile(path.Join(checkoutDir, name))
		if err == nil && bytes.Contains(text, []byte("filter=lfs")) { // one that is no file has no attributes
			return true, nil
		}
	}
	return false, nil
}

// git runs git in the checkout's folder with nothing of the host's configuration,
// no hooks and no transport that could start a program or read local files
// other than the one given.
func (s *sources) git(ctx context.Context, args ...string) error {
	// Files must be writable to whatever user the job's image has, as with the
	// official runner: hence no umask.
	command := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `umask 0000; exec git "$@"`, "git"}, args...)...)
	command.Dir = s.hostPath
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 5 * time.Second
	out := &pathWriter{w: s.out, from: []byte(s.hostPath), to: []byte(s.job.projectDir)}
	command.Stdout, command.Stderr = out, out
	command.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "LANG=C.UTF-8",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0", "GIT_SSH_COMMAND=false", "GIT_ASKPASS=true",
		"GIT_CEILING_DIRECTORIES=" + filepath.Dir(s.hostPath), "GIT_LFS_SKIP_SMUDGE=1",
	}, s.gitConfig()...)
	// The kernel sends Pdeathsig when the thread that started the process ends,
	// and threads of this program do: making a network namespace costs one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := errors.Join(command.Run(), out.flush())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if exit.ExitCode() < 0 {
			return fmt.Errorf("git was ended by %s", exit.String()) // nobody's doing but this host's
		}
		return &JobError{Reason: ReasonScript, Message: fmt.Sprintf("exit code %d", exit.ExitCode()), ExitCode: exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("run git: %w", err)
	}
	return nil
}

// gitConfig passes configuration through the environment: the values hold the
// job's token.
func (s *sources) gitConfig() []string {
	pairs := [][2]string{
		{"core.hooksPath", "/dev/null"}, {"core.fsmonitor", "false"},
		{"core.fsync", "none"}, // the checkout ends with the job
		{"safe.directory", "*"}, {"credential.helper", ""},
		{"protocol.allow", "never"}, {"protocol.http.allow", "always"}, {"protocol.https.allow", "always"},
		{"protocol.file.allow", "user"},
		{"advice.detachedHead", "false"},
	}
	if repo, err := url.Parse(s.job.spec.GitInfo.RepoURL); err == nil && repo.Host != "" {
		plain := repo.Scheme + "://" + repo.Host + "/"
		with := withUser(plain, "gitlab-ci-token", s.job.spec.Token)
		pairs = append(pairs, [2]string{"url." + with + ".insteadOf", plain})
		if ca := s.job.runner.authority(); ca != "" {
			for _, address := range append([]string{repo.Scheme + "://" + repo.Host}, s.job.runner.config.SecureURLs...) {
				pairs = append(pairs, [2]string{"http." + address + "/.sslCAInfo", ca})
			}
		}
		if s.job.variables.Bool("GIT_SUBMODULE_FORCE_HTTPS") {
			pairs = append(pairs, [2]string{"url." + with + ".insteadOf", "git@" + repo.Hostname() + ":"},
				[2]string{"url." + with + ".insteadOf", "ssh://git@" + repo.Hostname() + "/"})
		}
	}
	environ := []string{"GIT_CONFIG_COUNT=" + strconv.Itoa(len(pairs))}
	for i, pair := range pairs {
		environ = append(environ, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, pair[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, pair[1]))
	}
	return environ
}

func withUser(address, user, password string) string {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" || password == "" {
		return address
	}
	parsed.User = url.UserPassword(user, password)
	return parsed.String()
}

func withoutUser(address string) string {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" {
		return address
	}
	parsed.User = nil
	return parsed.String()
}
