package process

import (
	"testing"

	"go.yaml.in/yaml/v3"
)

func planned(t *testing.T, text []byte) (*Pipeline, []int) {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	type job struct {
		Stage        string   `yaml:"stage"`
		When         string   `yaml:"when"`
		Needs        []string `yaml:"needs"`
		AllowFailure *bool    `yaml:"allow_failure"`
		Retry        int      `yaml:"retry"`
	}
	stages := []string{".pre", "build", "test", "deploy", ".post"}
	cancel := false
	var names []string
	jobs := map[string]job{}
	root := doc.Content[0]
	for i := 0; i < len(root.Content); i += 2 {
		k, v := root.Content[i].Value, root.Content[i+1]
		switch k {
		case "stages":
			stages = nil
			v.Decode(&stages)
		case "workflow":
			cancel = true
		default:
			j := job{Stage: "test"}
			if err := v.Decode(&j); err != nil {
				t.Fatal(err)
			}
			jobs[k] = j
			names = append(names, k)
		}
	}
	used := []string{}
	idx := map[string]int{}
	for _, s := range stages {
		for _, n := range names {
			if jobs[n].Stage == s {
				idx[s] = len(used)
				used = append(used, s)
				break
			}
		}
	}
	pos := map[string]int{}
	for i, n := range names {
		pos[n] = i
	}
	var list []Job
	var retries []int
	for _, n := range names {
		j := jobs[n]
		w, _ := ParseWhen(j.When)
		x := Job{Name: n, Stage: idx[j.Stage], When: w, DAG: j.Needs != nil, AllowFailure: w == OnManual}
		if j.AllowFailure != nil {
			x.AllowFailure = *j.AllowFailure
		}
		for _, d := range j.Needs {
			x.Needs = append(x.Needs, pos[d])
		}
		list = append(list, x)
		retries = append(retries, j.Retry)
	}
	p, err := New(used, list)
	if err != nil {
		t.Fatal(err)
	}
	p.CancelOnFailure = cancel
	return p, retries
}
