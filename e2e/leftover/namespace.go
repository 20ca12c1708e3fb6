package leftover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func namespacePath(name string) string { return filepath.Join("/run/netns", name) }

func exists(namespace string) bool {
	_, err := os.Stat(namespacePath(namespace))
	return namespace != "" && err == nil
}

// Inside calls f on a thread in the network namespace of that name; programs f
// starts live there. Without a name f runs in a namespace of its own, where
// nothing of the host's can be changed.
func Inside(name string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := enter(name); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func enter(name string) error {
	if name == "" {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return nil
	}
	file, err := os.Open(namespacePath(name))
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	return nil
}

// removeNamespace takes a network namespace away, with the ends of its links
// and the nftables table of its name.
func removeNamespace(ctx context.Context, name string) error {
	run := func(words ...string) error {
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	// Added first, so that deleting what is not there is no error.
	failed := errors.Join(run("nft", "add", "table", "ip", name), run("nft", "delete", "table", "ip", name))
	if exists(name) {
		failed = errors.Join(failed, run("ip", "netns", "delete", name))
	}
	return failed
}
