// Command testsummary reads the output of `go test -json` and prints what a
// person wants to know: the output of what failed, one line a package, and,
// with -total, the closing line "N passed, N failed" over all files.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
)

type event struct {
	Action     string
	Package    string
	Test       string
	Output     string
	Elapsed    float64
	ImportPath string
}

type outcome struct {
	passed, failed, skipped int
	seconds                 float64
	broken                  bool // the package failed outside of any test
}

func main() {
	total := flag.Bool("total", false, "print only the closing line over all files")
	flag.Parse()
	sum := outcome{}
	for _, name := range flag.Args() {
		o, err := read(name, !*total)
		if err != nil {
			fmt.Fprintln(os.Stderr, "testsummary:", err)
			os.Exit(2)
		}
		sum.passed, sum.failed, sum.skipped = sum.passed+o.passed, sum.failed+o.failed, sum.skipped+o.skipped
	}
	if *total {
		line := fmt.Sprintf("%d passed, %d failed", sum.passed, sum.failed)
		if sum.skipped > 0 {
			line += fmt.Sprintf(", %d skipped", sum.skipped)
		}
		fmt.Println(line)
	}
	if sum.failed > 0 {
		os.Exit(1)
	}
}

func read(name string, show bool) (outcome, error) {
	f, err := os.Open(name)
	if err != nil {
		return outcome{}, err
	}
	defer f.Close()
	packages := map[string]*outcome{}
	outputs := map[string]*strings.Builder{}
	sum := outcome{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			if show {
				fmt.Println(lines.Text()) // not JSON: the error output of the tool itself
			}
			continue
		}
		if e.Package == "" {
			e.Package = e.ImportPath
		}
		p := packages[e.Package]
		if p == nil {
			p = &outcome{}
			packages[e.Package] = p
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			b := outputs[key]
			if b == nil {
				b = &strings.Builder{}
				outputs[key] = b
			}
			b.WriteString(e.Output)
		case "pass", "fail", "skip", "build-fail":
			record(p, &sum, e)
			if show && (e.Action == "fail" || e.Action == "build-fail") && outputs[key] != nil {
				fmt.Print(outputs[key].String())
			}
			if show && e.Action == "skip" && e.Test != "" && outputs[key] != nil {
				fmt.Print(outputs[key].String())
			}
			delete(outputs, key)
		}
	}
	if err := lines.Err(); err != nil {
		return sum, err
	}
	if show {
		names := make([]string, 0, len(packages))
		for n := range packages {
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			p := packages[n]
			if p.passed+p.failed+p.skipped > 0 || p.broken {
				fmt.Printf("   %-60s %4d passed %3d failed %3d skipped %7.1f s\n", strings.TrimPrefix(n, "github.com/slipwayhq/slipway/"), p.passed, p.failed, p.skipped, p.seconds)
			}
		}
	}
	return sum, nil
}

func record(p, sum *outcome, e event) {
	if e.Test == "" {
		p.seconds = e.Elapsed
		if e.Action == "fail" && p.failed == 0 || e.Action == "build-fail" {
			p.broken = true
			p.failed++
			sum.failed++
		}
		return
	}
	switch e.Action {
	case "pass":
		p.passed++
		sum.passed++
	case "fail":
		p.failed++
		sum.failed++
	case "skip":
		p.skipped++
		sum.skipped++
	}
}
