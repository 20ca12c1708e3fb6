// Package wholefile stores small files so that a reader, and whoever comes after
// a crash, finds all of the old content or all of the new.
//
// It receives content and emits files. It must import nothing of ours.
package wholefile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/atomicwriter"
)

// Write makes the file at path have this content and these permission bits,
// whatever the umask; its folder is made, closed to others, where it is missing.
// A file that has the content already is not written again, so that those who
// watch it see changes only. The error names the path.
func Write(path string, content []byte, mode os.FileMode) error {
	if present, err := os.ReadFile(path); err == nil && bytes.Equal(present, content) {
		return os.Chmod(path, mode)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := atomicwriter.WriteFile(path, content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
