package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

const tailBlock = 1 << 20 // bytes read from the end of a log at the most

// showLog prints the last lines of a file and, with follow, what is added to
// it until ctx ends. A file that is truncated by rotation is read from its new
// start.
func showLog(ctx context.Context, w io.Writer, path string, lines int, follow bool) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	block := make([]byte, min(end, tailBlock))
	if _, err := f.ReadAt(block, end-int64(len(block))); err != nil && err != io.EOF {
		return fmt.Errorf("log: %w", err)
	}
	if _, err := w.Write(lastLines(block, lines)); err != nil {
		return err
	}
	if !follow {
		return nil
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := io.Copy(w, f)
		if err != nil {
			return err
		}
		end += n
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if info, err := f.Stat(); err == nil && info.Size() < end {
			if end, err = f.Seek(0, io.SeekStart); err != nil {
				return fmt.Errorf("log: %w", err)
			}
		}
	}
}

func lastLines(b []byte, n int) []byte {
	i := len(bytes.TrimRight(b, "\n"))
	for ; n > 0; n-- {
		i = bytes.LastIndexByte(b[:i], '\n')
		if i < 0 {
			return b
		}
	}
	return b[i+1:]
}
