package gitlabci

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// largePipeline is a file set of about n jobs with includes, extends, matrix and needs.
func largePipeline(n int) (root []byte, files fstest.MapFS) {
	files = fstest.MapFS{}
	var r strings.Builder
	r.WriteString("stages: [build, test]\ninclude:\n")
	for g := range 10 {
		var b strings.Builder
		for i := range n / 10 / 5 {
			fmt.Fprintf(&b, "build-%d-%d: {extends: .base, stage: build, script: [make]}\n", g, i)
			fmt.Fprintf(&b, "test-%d-%d:\n  extends: .base\n  stage: test\n  needs: [build-%d-%d]\n  script: [test]\n  parallel:\n    matrix: [{A: [a, b], B: [c, d]}]\n", g, i, g, i)
		}
		name := fmt.Sprintf("g%d.yml", g)
		files[name] = &fstest.MapFile{Data: []byte(b.String())}
		fmt.Fprintf(&r, "  - local: %s\n", name)
	}
	r.WriteString(".base:\n  image: alpine\n  tags: [a]\n  rules:\n    - if: $CI_COMMIT_BRANCH =~ /^main/\n    - if: $CI_COMMIT_TAG\n  before_script: [one, two]\n")
	return []byte(r.String()), files
}

func BenchmarkPlan(b *testing.B) {
	text, files := largePipeline(1000)
	if folder := os.Getenv("CIPLAN_FOLDER"); folder != "" {
		files = nil
		var err error
		if text, err = os.ReadFile(folder + "/.gitlab-ci.yml"); err != nil {
			b.Fatal(err)
		}
	}
	src := &Folder{Files: files}
	if files == nil {
		src.Files = os.DirFS(os.Getenv("CIPLAN_FOLDER"))
	}
	event := Context{Source: "push", Ref: "main", Predefined: map[string]string{"CI_COMMIT_BRANCH": "main"}}
	b.ReportAllocs()
	for b.Loop() {
		c, diags := Compile(context.Background(), ".gitlab-ci.yml", text, src, event)
		if diags.Failed() {
			b.Fatal(diags.Err())
		}
		p, diags := Plan(context.Background(), c, event)
		if diags.Failed() || len(p.Jobs) != 1000 {
			b.Fatal(len(p.Jobs), diags.Err())
		}
		if _, err := json.Marshal(p); err != nil {
			b.Fatal(err)
		}
	}
}
