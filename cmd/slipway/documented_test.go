package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// checkLine reports why a documented command line of ours would be refused
// before it does anything: an unknown command or flag, or too many or too few
// arguments. What other programs' command lines take is theirs.
func checkLine(t *testing.T, place, line string) {
	t.Helper()
	words := strings.Fields(line)
	c, rest, err := newRoot().Find(words)
	if err != nil {
		t.Errorf("%s: slipway %s: %v", place, line, err)
		return
	}
	if c.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		t.Errorf("%s: slipway %s: %q is no command of %s", place, line, rest[0], c.CommandPath())
		return
	}
	if c.DisableFlagParsing {
		return
	}
	c.InitDefaultHelpFlag()
	if err := c.ParseFlags(rest); err != nil {
		t.Errorf("%s: slipway %s: %v", place, line, err)
		return
	}
	if c.Runnable() && len(c.Flags().Args()) > 0 {
		if err := c.ValidateArgs(c.Flags().Args()); err != nil {
			t.Errorf("%s: slipway %s: %v", place, line, err)
		}
	}
}

var (
	quoted    = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	separator = regexp.MustCompile(`\s(?:&&|\|\|?|;|>>?|<|#)(?:\s|$)|[;)]`)
	program   = regexp.MustCompile(`(?:^|[\s(])(?:\S*/)?slipway ([a-z].*)$`)
	codeSpan  = regexp.MustCompile("`([^`]+)`")
)

// ours finds the command lines of ours in a shell's line, without the program's
// name.
func ours(shell string) []string {
	var out []string
	for _, part := range separator.Split(quoted.ReplaceAllString(shell, "quoted"), -1) {
		if m := program.FindStringSubmatch(strings.TrimSpace(part)); m != nil {
			out = append(out, m[1])
		}
	}
	return out
}

// TestDocumentedCommands: what the documentation tells to type is understood.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range append(files, "../../README.md") {
		if filepath.Base(file) == "benchmarks.md" {
			continue // its blocks are what programs printed
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		inBlock := false
		for line := range strings.Lines(strings.ReplaceAll(string(raw), "\\\n", " ")) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				inBlock = !inBlock
				continue
			}
			shell := []string{line}
			if !inBlock {
				shell = nil
				for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
					shell = append(shell, m[1])
				}
			}
			for _, s := range shell {
				for _, one := range ours(s) {
					n++
					checkLine(t, filepath.Base(file), one)
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d command lines found", n)
	}
}

// TestExamples: every command has an example, which it understands.
func TestExamples(t *testing.T) {
	t.Parallel()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Runnable() && c.Example == "" && !c.Hidden {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			for _, one := range ours(line) {
				checkLine(t, c.CommandPath()+" --help", one)
			}
		}
		for _, sub := range c.Commands() {
			if !slices.Contains([]string{"help", "completion"}, sub.Name()) {
				walk(sub)
			}
		}
	}
	walk(newRoot())
}
