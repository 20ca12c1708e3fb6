package gitlabci

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

func stepsJob(t *testing.T, config string) []byte {
	t.Helper()
	event := Context{Source: "push", Ref: "main", Predefined: map[string]string{"CI_COMMIT_BRANCH": "main"}}
	compiled, diags := Compile(t.Context(), "ci.yml", []byte(config), emptySources{}, event)
	if diags.Failed() {
		t.Fatal(diags)
	}
	p, diags := Plan(t.Context(), compiled, event)
	if diags.Failed() {
		t.Fatal(diags)
	}
	raw, err := json.Marshal(&p.Jobs[0])
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestRunSteps executes what becomes of run: with a shell.
func TestRunSteps(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("sh is not installed")
	}
	raw := stepsJob(t, `
job:
  inputs: {who: {default: you}}
  run:
    - name: first
      env: {A: "it's $HOME \"${{ job.inputs.who }}\" ${{ env.B }}", C: 5}
      script: |
        cd /
        echo "$A $C"
    - name: second
      script: 'echo "A is ${A:-unset} for ${{ job.inputs.who }}"; test "$PWD" = /'
`)
	raw, err := FillJobInputs(raw, map[string]string{"who": "me"})
	if err != nil {
		t.Fatal(err)
	}
	var j Job
	if err := json.Unmarshal(raw, &j); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", strings.Join(j.Script, "\n"))
	cmd.Dir, cmd.Env = t.TempDir(), []string{"B=bee", "HOME=/root", "PATH=/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	if want := "it's $HOME \"me\" bee 5\nA is unset for me\n"; string(out) != want || err == nil {
		t.Errorf("%q, %v; want %q and a failure, since a step's folder is its own", out, err, want)
	}
}

func TestJobInputs(t *testing.T) {
	t.Parallel()
	raw := stepsJob(t, `
job:
  inputs:
    level: {default: info, options: [info, debug]}
    count: {type: number, default: 3}
    quoted: {default: 'say "x" \ y'}
  image: tool:${{ job.inputs.level }}
  script: ['run --times ${{job.inputs.count}} ${{ job.inputs.quoted }} ${{ job.inputs.other }}']
`)
	for given, want := range map[string]string{
		"":      `tool:info run --times 3 say "x" \ y ${{ job.inputs.other }}`,
		"debug": `tool:debug run --times 3 say "x" \ y ${{ job.inputs.other }}`,
	} {
		values := map[string]string{}
		if given != "" {
			values["level"] = given
		}
		filled, err := FillJobInputs(raw, values)
		if err != nil {
			t.Fatal(err)
		}
		var j Job
		if err := json.Unmarshal(filled, &j); err != nil {
			t.Fatal(err)
		}
		if got := j.Image.Name + " " + j.Script[0]; got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
	var j Job
	if err := json.Unmarshal(raw, &j); err != nil || len(j.Inputs) != 3 {
		t.Fatal(j.Inputs, err)
	}
	for _, c := range []struct {
		input       int
		value, want string
	}{{0, "debug", ""}, {0, "loud", "not among the allowed values info, debug"}, {1, "4", ""}, {1, "four", "must be a number"}} {
		err := j.Inputs[c.input].Check(c.value)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.value, err, c.want)
		}
	}
}
