package forge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// gitProgram runs the system's git with a configuration of our own, so that
// nothing of the host's or the user's leaks in.
type gitProgram struct {
	path  string
	minor int // of version 2
	env   []string
	hooks string
	tmp   string
}

// gitConfig holds for every repository. Objects and references are flushed to
// disk before a push is acknowledged; fsync in batches keeps that cheap.
const gitConfig = `[core]
	hooksPath = %s
	fsync = committed,reference
	fsyncMethod = batch
	alternateRefsCommand = true
	logAllRefUpdates = false
	commitGraph = true
[safe]
	directory = *
[init]
	defaultBranch = main
[user]
	name = Slipway
	email = noreply@localhost
[gc]
	auto = 0
	writeCommitGraph = false
[maintenance]
	auto = false
[repack]
	writeBitmaps = true
[pack]
	threads = 2
	windowMemory = 100m
[http]
	lowSpeedLimit = 1000
	lowSpeedTime = 60
[transfer]
	hideRefs = refs/slipway
[receive]
	advertisePushOptions = true
	fsckObjects = true
	maxInputSize = %d
	denyDeleteCurrent = ignore
	denyCurrentBranch = ignore
	hideRefs = refs/pipelines
	hideRefs = refs/merge-requests
	autogc = false
[receive "fsck"]
	badTimezone = ignore
	missingSpaceBeforeDate = ignore
	zeroPaddedFilemode = ignore
	missingNameBeforeEmail = ignore
[uploadpack]
	allowFilter = true
	allowAnySHA1InWant = true
[merge]
	renameLimit = 1000
[diff]
	renameLimit = 1000
[advice]
	objectNameWarning = false
[gpg "ssh"]
	allowedSignersFile = /dev/null
`

// hookScript talks to the platform over two inherited file descriptors: it
// writes what git tells it to 3 and reads the verdict from 4. It needs nothing
// but a shell, so that a push costs no extra program of ours.
const hookScript = `#!/bin/sh
# Asks the platform about a push; see internal/forge/receive.go.
if [ -z "$SLIPWAY_PUSH" ]; then
	echo "Pushes go through the platform, not to the folder." >&2
	exit 1
fi
# An option with a line break could speak for git below.
newline='
'
i=0
while [ "$i" -lt "${GIT_PUSH_OPTION_COUNT:-0}" ]; do
	eval "option=\$GIT_PUSH_OPTION_$i"
	case "$option" in
	*"$newline"*)
		echo "A push option must not contain a line break." >&2
		exit 1
		;;
	esac
	i=$((i + 1))
done
{
	printf 'hook %s\n' "${0##*/}"
	printf 'objects %s\n' "$GIT_OBJECT_DIRECTORY"
	printf 'alternates %s\n' "$GIT_ALTERNATE_OBJECT_DIRECTORIES"
	i=0
	while [ "$i" -lt "${GIT_PUSH_OPTION_COUNT:-0}" ]; do
		eval "option=\$GIT_PUSH_OPTION_$i"
		printf 'option %s\n' "$option"
		i=$((i + 1))
	done
	cat
	echo end
} >&3 || exit 1
while IFS= read -r line <&4; do
	case "$line" in
	ok) exit 0 ;;
	no) exit 1 ;;
	*) printf '%s\n' "${line#+}" >&2 ;;
	esac
done
echo "The platform went away during the push." >&2
exit 1
`

func newGitProgram(path, runDir string, maxPush int64) (*gitProgram, error) {
	if path == "" {
		var err error
		if path, err = exec.LookPath("git"); err != nil {
			return nil, &delivery.Error{Kind: delivery.Stalled, Op: "forge: start", Message: "git is not installed.", Next: "Install it: apt-get install git", Err: err}
		}
	}
	home := filepath.Join(runDir, "git")
	g := &gitProgram{path: path, hooks: filepath.Join(home, "hooks"), tmp: filepath.Join(home, "tmp")}
	if err := os.RemoveAll(g.tmp); err != nil {
		return nil, fmt.Errorf("forge: clear temporary folder: %w", err)
	}
	for _, dir := range []string{g.hooks, g.tmp} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("forge: create folder: %w", err)
		}
	}
	var err error
	if g.minor, err = gitVersion(path); err != nil {
		return nil, err
	}
	config := filepath.Join(home, "gitconfig")
	text := fmt.Sprintf(gitConfig, strconv.Quote(g.hooks), maxPush)
	if g.minor < 36 {
		// What core.fsync is called in older versions.
		text += "[core]\n\tfsyncObjectFiles = true\n"
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("forge: write git's configuration: %w", err)
	}
	for _, hook := range []string{"pre-receive", "post-receive"} {
		if err := os.WriteFile(filepath.Join(g.hooks, hook), []byte(hookScript), 0o700); err != nil {
			return nil, fmt.Errorf("forge: write hook: %w", err)
		}
	}
	g.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + g.tmp, "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + config, "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_REPLACE_OBJECTS=1"}
	return g, nil
}

const (
	oldestGit    = 32 // GIT_CONFIG_GLOBAL
	mergeTreeGit = 38 // merge-tree --write-tree
)

// gitVersion returns the minor number of an installed git 2.
func gitVersion(path string) (int, error) {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("forge: run git: %w", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "git version %d.%d", &major, &minor); err != nil {
		return 0, fmt.Errorf("forge: git says %q: %w", clip(string(out), 80), err)
	}
	if major == 2 && minor < oldestGit {
		return 0, &delivery.Error{Kind: delivery.Stalled, Op: "forge: start", Message: fmt.Sprintf("git 2.%d is too old.", minor), Next: fmt.Sprintf("Install git 2.%d or later.", oldestGit)}
	}
	if major > 2 {
		minor = 1 << 10
	}
	return minor, nil
}

// command prepares git in the repository dir. It ends with ctx: asked to stop
// first, killed after some seconds.
func (g *gitProgram) command(ctx context.Context, dir string, env []string, args ...string) *exec.Cmd {
	if dir != "" {
		args = append([]string{"--git-dir=" + dir}, args...)
	}
	cmd := exec.CommandContext(ctx, g.path, args...)
	cmd.Dir = dir
	if dir == "" {
		cmd.Dir = g.tmp
	}
	cmd.Env = append(append(make([]string, 0, len(g.env)+len(env)), g.env...), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// gitError is a failed run of git.
type gitError struct {
	args   []string
	code   int
	stderr string
	err    error
}

func (e *gitError) Error() string {
	return fmt.Sprintf("git %s: %v: %s", strings.Join(e.args, " "), e.err, strings.TrimSpace(e.stderr))
}

func (e *gitError) Unwrap() error { return e.err }

const maxStderr = 16 << 10

// limited keeps the first bytes that are written to it.
type limited struct {
	bytes.Buffer
	max int
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.max - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// run returns what git prints. Its error is a *gitError, or ctx's.
func (g *gitProgram) run(ctx context.Context, dir string, stdin io.Reader, args ...string) ([]byte, error) {
	return g.runEnv(ctx, dir, nil, stdin, args...)
}

func (g *gitProgram) runEnv(ctx context.Context, dir string, env []string, stdin io.Reader, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := g.stream(ctx, dir, env, stdin, &out, args...)
	return out.Bytes(), err
}

// stream runs git with its output going to w.
func (g *gitProgram) stream(ctx context.Context, dir string, env []string, stdin io.Reader, w io.Writer, args ...string) error {
	cmd := g.command(ctx, dir, env, args...)
	stderr := limited{max: maxStderr}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, w, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &gitError{args: args, code: cmd.ProcessState.ExitCode(), stderr: stderr.String(), err: err}
	}
	return nil
}

// exitCode returns the exit status in a *gitError, or -1.
func exitCode(err error) int {
	var e *gitError
	if errors.As(err, &e) {
		return e.code
	}
	return -1
}

// limitWriter fails once more than n bytes were written, which ends the
// program that writes.
type limitWriter struct {
	w io.Writer
	n int64
}

var errTooMuch = &delivery.Error{Kind: delivery.TooLarge, Op: "forge: read", Message: "The result is too large to be shown."}

func (l *limitWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > l.n {
		n, _ := l.w.Write(p[:l.n])
		l.n = 0
		return n, errTooMuch
	}
	n, err := l.w.Write(p)
	l.n -= int64(n)
	return n, err
}
