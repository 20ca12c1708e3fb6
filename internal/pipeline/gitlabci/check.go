package gitlabci

import "strings"

// check looks at what keywords say about each other: stages, needs, dependencies, environments.
func (c *Config) check(d *decoder) {
	if len(c.jobs) == 0 && !d.diags.Failed() {
		d.missing(c.root, "the file has no visible job; a job is a key with script or trigger whose name has no dot in front")
		return
	}
	for _, j := range c.jobs {
		c.byName[j.name] = target{j, -1}
	}
	for _, j := range c.jobs {
		if j.parallel == nil {
			continue
		}
		for i, in := range j.parallel.instances(j.name) {
			if _, ok := c.byName[in.name]; !ok {
				c.byName[in.name] = target{j, i}
			}
		}
	}
	stage := make(map[string]int, len(c.stages))
	for i, s := range c.stages {
		stage[s] = i
	}
	for _, j := range c.jobs {
		d.job = j.name
		c.checkStage(d, j, stage)
		c.checkNames(d, j, stage)
	}
	d.job = ""
	c.checkCycles(d)
}

func (c *Config) checkStage(d *decoder, j *jobDef, stage map[string]int) {
	if _, ok := stage[j.template.Stage]; ok || j.template.Stage == "" || c.badStages || d.incomplete {
		return
	}
	at := j.node.get("stage")
	if at == nil {
		at = &node{place: place{j.template.File, j.template.Line, 1}}
	}
	d.kind = referenceFinding
	d.at(at, "stage", "names %s, which is not among the stages %s%s", j.template.Stage,
		strings.Join(c.stages, ", "), didYouMean(j.template.Stage, c.stages))
	d.kind = keywordFinding
}

func (c *Config) checkNames(d *decoder, j *jobDef, stage map[string]int) {
	if j.needs != nil {
		d.in("needs", func() { c.checkNeeds(d, j, j.needs, stage) })
	}
	for i := range j.rules {
		if n := j.rules[i].needs; n != nil {
			d.in("rules:needs", func() { c.checkNeeds(d, j, n, stage) })
		}
	}
	if j.dependencies != nil {
		d.in("dependencies", func() {
			for _, v := range j.dependencies.items {
				if v.kind == stringKind {
					c.checkName(d, v, j, v.text, stage, false)
				}
			}
			c.checkDependencies(d, j)
		})
	}
	if e := j.template.Environment; e != nil && e.OnStop != "" {
		d.in("environment:on_stop", func() { c.checkOnStop(d, j, e) })
	}
	if t := j.template.Trigger; t != nil {
		for _, inc := range t.Include {
			if inc.Artifact != "" && inc.Job != "" {
				d.in("trigger:include:job", func() { c.checkName(d, j.node.get("trigger"), j, inc.Job, stage, false) })
			}
		}
	}
}

func (c *Config) checkNeeds(d *decoder, j *jobDef, n *needs, stage map[string]int) {
	for i := range n.jobs {
		need := &n.jobs[i]
		at := &node{place: need.place}
		if !c.checkName(d, at, j, need.Job, stage, need.Optional) || need.matrix == nil {
			continue
		}
		job := c.byName[need.Job].job
		if job == nil || job.parallel == nil || job.parallel.rows == nil {
			d.missing(at, "names %s with a matrix, but that job has none", need.Job)
			continue
		}
		if hasMatrixBlock(need.matrix) {
			continue
		}
		for _, want := range combinations(need.matrix) {
			if !anyCovers(job.parallel.instances(job.name), want) {
				d.missing(at, "names %s, but that job has no such instance", matrixName(need.Job, want))
			}
		}
	}
}

func hasMatrixBlock(rows []matrixRow) bool {
	for _, row := range rows {
		for _, v := range row {
			for _, value := range v.values {
				if strings.Contains(value, "$[[") {
					return true
				}
			}
		}
	}
	return false
}

func anyCovers(list []instance, want Variables) bool {
	for _, in := range list {
		if in.parallel.covers(want) {
			return true
		}
	}
	return false
}

// checkName checks that a job exists and does not come later.
func (c *Config) checkName(d *decoder, at *node, j *jobDef, name string, stage map[string]int, optional bool) bool {
	if name == "" || strings.Contains(name, "$[[") {
		return false
	}
	t, ok := c.byName[name]
	switch {
	case !ok && optional:
		return false
	case !ok:
		d.missing(at, "names the job %s, which does not exist%s", name, didYouMean(name, c.JobNames()))
		return false
	case t.job == j:
		d.missing(at, "names the job itself")
		return false
	}
	mine, ok1 := stage[j.template.Stage]
	theirs, ok2 := stage[t.job.template.Stage]
	if ok1 && ok2 && theirs > mine {
		d.missing(at, "names %s, whose stage %s comes after %s", name, t.job.template.Stage, j.template.Stage)
		return false
	}
	return true
}

// checkDependencies requires that a job with needs downloads only from jobs it needs.
func (c *Config) checkDependencies(d *decoder, j *jobDef) {
	if j.needs == nil || len(j.template.Dependencies) == 0 {
		return
	}
	for _, name := range j.template.Dependencies {
		found := false
		for _, n := range j.needs.jobs {
			found = found || n.Job == name || c.byName[n.Job].job == c.byName[name].job
		}
		if !found {
			d.missing(j.dependencies, "names %s, which is not part of needs", name)
		}
	}
}

func (c *Config) checkOnStop(d *decoder, j *jobDef, e *Environment) {
	at := j.node.get("environment").get("on_stop")
	t, ok := c.byName[e.OnStop]
	switch {
	case !ok:
		d.missing(at, "names the job %s, which does not exist%s", e.OnStop, didYouMean(e.OnStop, c.JobNames()))
	case t.job.template.Environment == nil:
		d.missing(at, "names %s, which has no environment", e.OnStop)
	case t.job.template.Environment.Name != e.Name:
		d.missing(at, "names %s, whose environment is %s instead of %s", e.OnStop, t.job.template.Environment.Name, e.Name)
	case t.job.template.Environment.Action != "stop":
		d.missing(at, "names %s, which needs environment:action: stop", e.OnStop)
	}
}

// checkCycles reports needs that lead in a circle, which is possible within one stage.
func (c *Config) checkCycles(d *decoder) {
	state := make(map[*jobDef]uint8, len(c.jobs))
	var trail []string
	var visit func(j *jobDef) bool
	visit = func(j *jobDef) bool {
		switch state[j] {
		case 2:
			return true
		case 1:
			from := 0
			for i, name := range trail {
				if name == j.name {
					from = i
				}
			}
			at := &node{place: place{j.template.File, j.template.Line, 1}}
			d.missing(at, "needs lead in a circle: %s", strings.Join(append(trail[from:len(trail):len(trail)], j.name), " -> "))
			return false
		}
		state[j] = 1
		trail = append(trail, j.name)
		ok := true
		if j.needs != nil {
			for _, n := range j.needs.jobs {
				if t := c.byName[n.Job]; t.job != nil && t.job != j && ok {
					ok = visit(t.job)
				}
			}
		}
		trail = trail[:len(trail)-1]
		state[j] = 2
		return ok
	}
	for _, j := range c.jobs {
		if !visit(j) {
			return
		}
	}
}
