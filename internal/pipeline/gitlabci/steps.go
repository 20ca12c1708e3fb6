package gitlabci

import (
	"regexp"
	"strings"
)

// stepName is what GitLab lets a step be called.
var stepName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

var (
	stepExpression = regexp.MustCompile(`\$\{\{[^}]*\}\}`)
	stepVariable   = regexp.MustCompile(`^\$\{\{\s*(?:env|job)\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}$`)
)

// readRun reads run: as commands. A step with a script is a shell of its own
// with the step's env; steps that are fetched from elsewhere are refused.
func readRun(d *decoder, n *node) []string {
	if n.kind != listKind {
		d.errorf(n, "must be a list of steps, not %s", n.describe())
		return nil
	}
	if len(n.items) == 0 {
		d.errorf(n, "must not be empty")
	}
	var out []string
	seen := map[string]bool{}
	for _, step := range n.items {
		if !d.mapping(step, "name", "script", "step", "action", "func", "inputs", "env") {
			continue
		}
		if name := step.get("name"); name == nil {
			d.errorf(step, "needs a name")
		} else {
			d.in("name", func() {
				text := d.filled(name)
				switch {
				case text != "" && !stepName.MatchString(text):
					d.errorf(name, "is %s; use letters, digits and _", name.describe())
				case seen[text]:
					d.errorf(name, "is %s, as that of another step", name.describe())
				}
				seen[text] = true
			})
		}
		for _, key := range []string{"step", "action", "func"} {
			if v := step.get(key); v != nil {
				d.in(key, func() {
					d.missing(v, "is not offered: steps of other repositories are not run here; write the commands as script")
				})
			}
		}
		env := readStepEnv(d, step)
		script := step.get("script")
		if script == nil {
			if !step.has("step") && !step.has("action") && !step.has("func") {
				d.errorf(step, "needs script")
			}
			continue
		}
		d.in("script", func() {
			if text := d.filled(script); text != "" {
				out = append(out, "(\nset -e\n"+env+stepText(d, script, text)+"\n)")
			}
		})
	}
	return out
}

// readStepEnv returns the commands that set a step's env.
func readStepEnv(d *decoder, step *node) string {
	var b strings.Builder
	d.optional(step, "env", func(v *node) {
		if !d.anyMapping(v) {
			return
		}
		for _, f := range v.fields {
			d.in(f.key, func() {
				if !stepVariableName.MatchString(f.key) {
					d.errorf(&node{place: f.place}, "is not the name of a variable")
				}
				if !f.value.scalar() {
					d.errorf(f.value, "must be a string, not %s", f.value.describe())
					return
				}
				// Double quotes let expressions of variables through and nothing else.
				text := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(stepExpression.ReplaceAllString(f.value.text, "\x00$0\x00"))
				parts := strings.Split(text, "\x00")
				for i := 1; i < len(parts); i += 2 {
					parts[i] = stepText(d, f.value, strings.ReplaceAll(parts[i], `\$`, `$`))
				}
				b.WriteString("export " + f.key + `="` + strings.Join(parts, "") + "\"\n")
			})
		}
	})
	return b.String()
}

var stepVariableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// stepText turns the expressions of variables into the shell's; inputs of the
// job are filled in when it starts.
func stepText(d *decoder, n *node, text string) string {
	return stepExpression.ReplaceAllStringFunc(text, func(e string) string {
		if m := stepVariable.FindStringSubmatch(e); m != nil {
			return "${" + m[1] + "}"
		}
		if !jobInputUse.MatchString(e) {
			d.missing(n, "has the expression %s; only ${{ env.NAME }}, ${{ job.NAME }} and ${{ job.inputs.NAME }} are known", e)
		}
		return e
	})
}
