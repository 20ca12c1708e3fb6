package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// bootIDFile tells one boot of the kernel from another, see random(4).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// forgetEarlierBoot removes the state of containers that a reboot has ended:
// their mounts, network namespaces and addresses. The data directory outlives
// a reboot, unlike /run, where containerd usually keeps such state.
func forgetEarlierBoot(c Config, bootIDFile string) error {
	now, err := os.ReadFile(bootIDFile)
	if err != nil {
		return fmt.Errorf("read the boot's id: %w", err)
	}
	mark := filepath.Join(c.containerdDir(), "boot-id")
	last, err := os.ReadFile(mark)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the last boot's id: %w", err)
	}
	if err == nil && strings.TrimSpace(string(last)) != strings.TrimSpace(string(now)) {
		if err := removeRuntimeFiles(c); err != nil {
			return fmt.Errorf("remove what was running before the reboot: %w", err)
		}
	}
	return wholefile.Write(mark, now, 0o600)
}
