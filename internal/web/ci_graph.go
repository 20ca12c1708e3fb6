package web

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// graphColumn is a stage of a pipeline as it is drawn.
type graphColumn struct {
	Name, Status string
	Boxes        []graphBox
}

// graphBox is a job, or the instances of a parallel job.
type graphBox struct {
	Name, Status string
	Done         int // instances that have ended
	Jobs         []graphJob
}

// graphJob is one job in a graph. Status may be "allowed": failed, which does
// not count.
type graphJob struct {
	Name, Status, Link string
	Action, ActionLink string // play, retry or cancel; empty: none
	Confirm            string // a question to ask before playing
	Waits              string // why it does not run yet
	Environment        string
	Downstream         *linkedPipeline
	Needs              []string
	DAG                bool // it has needs, possibly none, and so does not wait for stages
	Stage              int
}

// linkedPipeline is a pipeline that another one started.
type linkedPipeline struct {
	ID            int64
	Status        string
	Project, Link string // empty where the reader may not see the project
}

// jobGraph draws jobs by their stages.
func (s *Server) jobGraph(r *Request, g *pipeline.Graph, may bool) ([]graphColumn, error) {
	waits, err := s.Pipelines.Waits(r.Context())
	if err != nil {
		return nil, err
	}
	var columns []graphColumn
	for i, stage := range g.Stages {
		c := graphColumn{Name: stage.Name, Status: stage.Status}
		for _, group := range stage.Groups {
			box := graphBox{Name: group.Name, Status: group.Status}
			for j := range group.Jobs {
				one, err := s.graphJob(r, g, &group.Jobs[j], may)
				if err != nil {
					return nil, err
				}
				one.Stage, one.Waits = i, waits(&g.Pipeline, &group.Jobs[j])
				if finalStatus(group.Jobs[j].Status) {
					box.Done++
				}
				box.Jobs = append(box.Jobs, one)
			}
			if len(box.Jobs) == 1 {
				box.Status = box.Jobs[0].Status
			}
			c.Boxes = append(c.Boxes, box)
		}
		columns = append(columns, c)
	}
	return columns, nil
}

func finalStatus(status string) bool {
	return status == "success" || status == "failed" || status == "canceled" || status == "skipped"
}

func (s *Server) graphJob(r *Request, g *pipeline.Graph, j *pipeline.Job, may bool) (graphJob, error) {
	out := graphJob{Name: j.Name, Status: shownStatus(j), Link: jobLink(r.Project, j.ID), Needs: j.Needs, DAG: j.DAG, Environment: j.Environment}
	if j.Bridge {
		out.Link = ""
	}
	if may {
		if out.Action = mainAction(j); out.Action != "" {
			out.ActionLink = out.Link + "/" + out.Action
			if j.Bridge {
				out.ActionLink = jobLink(r.Project, j.ID) + "/" + out.Action
			}
		}
	}
	d, ok := g.Downstream[j.ID]
	if !ok {
		return out, nil
	}
	linked, err := s.linked(r, &d)
	out.Downstream = linked
	if linked != nil && linked.Link != "" {
		out.Link = linked.Link
	}
	return out, err
}

// linked describes another pipeline, with its project only where the caller
// may see that.
func (s *Server) linked(r *Request, p *pipeline.Pipeline) (*linkedPipeline, error) {
	out := &linkedPipeline{ID: p.ID, Status: p.Status}
	project := *r.Project
	if p.ProjectID != r.Project.ID {
		var err error
		project, _, err = s.Access.VisibleProject(r.Context(), r.Who, strconv.FormatInt(p.ProjectID, 10))
		if delivery.IsNotFound(err) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out.Project = project.FullPath
	}
	out.Link = pipelineLink(&project, p.ID)
	return out, nil
}

// shownStatus is a job's status, "allowed" for a failure that does not count.
func shownStatus(j *pipeline.Job) string {
	if j.Status == "failed" && j.AllowFailure {
		return "allowed"
	}
	return j.Status
}

// mainAction is what the button beside a job does.
func mainAction(j *pipeline.Job) string {
	switch j.Status {
	case "manual", "scheduled":
		return "play"
	case "success", "failed", "canceled":
		return "retry"
	case "pending", "running", "preparing", "waiting_for_resource":
		return "cancel"
	}
	return ""
}

// planGraph draws what a configuration would run.
func planGraph(plan *gitlabci.Pipeline) []graphColumn {
	columns := make([]graphColumn, len(plan.Stages))
	for i, name := range plan.Stages {
		columns[i] = graphColumn{Name: name, Status: "created"}
	}
	for _, j := range plan.Jobs {
		one := graphJob{Name: j.Name, Status: "created", DAG: j.Needs != nil, Stage: j.StageIndex}
		if j.When == "manual" || j.When == "delayed" {
			one.Status = map[string]string{"manual": "manual", "delayed": "scheduled"}[j.When]
		}
		if j.Environment != nil {
			one.Environment = j.Environment.Name
		}
		for _, n := range j.Needs {
			one.Needs = append(one.Needs, n.Job)
		}
		if j.StageIndex >= len(columns) {
			continue
		}
		c := &columns[j.StageIndex]
		if n := len(c.Boxes); n > 0 && c.Boxes[n-1].Name == j.Group && j.Parallel != nil {
			c.Boxes[n-1].Jobs = append(c.Boxes[n-1].Jobs, one)
			continue
		}
		c.Boxes = append(c.Boxes, graphBox{Name: j.Group, Status: one.Status, Jobs: []graphJob{one}})
	}
	return columns
}

// Sizes of the graph of dependencies, in pixels.
const (
	nodeWidth  = 210
	nodeHeight = 36
	nodeGapX   = 70
	nodeGapY   = 14
	maxImplied = 60 // arrows that stand for the order of stages, drawn up to this number per stage
)

// dagView is the graph by dependencies: every job stands right of what it
// waits for.
type dagView struct {
	Width, Height int
	Nodes         []dagNode
	Edges         []dagEdge
}

type dagNode struct {
	graphJob
	X, Y  int
	Label string
}

type dagEdge struct {
	Path    string
	Implied bool // by the order of stages
}

// layout places the jobs of a pipeline. A job without needs waits for all of
// the earlier stages.
func layout(columns []graphColumn) dagView {
	var jobs []graphJob
	index := map[string]int{}
	for _, c := range columns {
		for _, b := range c.Boxes {
			for _, j := range b.Jobs {
				index[j.Name] = len(jobs)
				jobs = append(jobs, j)
			}
		}
	}
	layer := layers(jobs, index)
	rows := map[int][]int{}
	row := make([]float64, len(jobs))
	depth := 0
	for i := range jobs {
		rows[layer[i]] = append(rows[layer[i]], i)
		depth = max(depth, layer[i]+1)
	}
	v := dagView{Width: depth*(nodeWidth+nodeGapX) - nodeGapX + 20}
	place := make([]dagNode, len(jobs))
	for l := range depth {
		list := rows[l]
		weight := map[int]float64{}
		for at, i := range list {
			weight[i] = center(&jobs[i], index, row, float64(at))
		}
		sort.SliceStable(list, func(a, b int) bool { return weight[list[a]] < weight[list[b]] })
		for at, i := range list {
			row[i] = float64(at)
			place[i] = dagNode{graphJob: jobs[i], X: 10 + l*(nodeWidth+nodeGapX), Y: 10 + at*(nodeHeight+nodeGapY), Label: clip(jobs[i].Name, 24)}
			v.Height = max(v.Height, place[i].Y+nodeHeight+10)
		}
	}
	v.Nodes = place
	v.Edges = edges(jobs, index, place)
	return v
}

// layers finds how far to the right each job stands.
func layers(jobs []graphJob, index map[string]int) []int {
	layer := make([]int, len(jobs))
	state := make([]int8, len(jobs)) // 1: under way, 2: done
	var before []int                 // the deepest layer of each stage, as far as known
	var visit func(i int) int
	visit = func(i int) int {
		if state[i] != 0 {
			return layer[i]
		}
		state[i] = 1
		if jobs[i].DAG {
			for _, n := range jobs[i].Needs {
				if at, ok := index[n]; ok && state[at] != 1 {
					layer[i] = max(layer[i], visit(at)+1)
				}
			}
		} else {
			for st := 0; st < jobs[i].Stage && st < len(before); st++ {
				layer[i] = max(layer[i], before[st]+1)
			}
		}
		state[i] = 2
		return layer[i]
	}
	for i := range jobs { // jobs come by stage, so all earlier stages are done
		for len(before) <= jobs[i].Stage {
			before = append(before, -1)
		}
		before[jobs[i].Stage] = max(before[jobs[i].Stage], visit(i))
	}
	return layer
}

// center is the mean row of what a job waits for, which keeps arrows short.
func center(j *graphJob, index map[string]int, row []float64, otherwise float64) float64 {
	sum, n := 0.0, 0
	for _, need := range j.Needs {
		if at, ok := index[need]; ok {
			sum += row[at]
			n++
		}
	}
	if n == 0 {
		return otherwise
	}
	return sum / float64(n)
}

func edges(jobs []graphJob, index map[string]int, place []dagNode) []dagEdge {
	var out []dagEdge
	byStage := map[int][]int{}
	for i := range jobs {
		byStage[jobs[i].Stage] = append(byStage[jobs[i].Stage], i)
	}
	waiting := map[int]int{}
	for i := range jobs {
		if !jobs[i].DAG {
			waiting[jobs[i].Stage]++
		}
	}
	for i := range jobs {
		if jobs[i].DAG {
			for _, n := range jobs[i].Needs {
				if at, ok := index[n]; ok {
					out = append(out, dagEdge{Path: curve(place[at], place[i])})
				}
			}
			continue
		}
		previous := jobs[i].Stage - 1
		for previous >= 0 && len(byStage[previous]) == 0 {
			previous--
		}
		if previous < 0 || len(byStage[previous])*waiting[jobs[i].Stage] > maxImplied {
			continue
		}
		for _, at := range byStage[previous] {
			if place[at].X < place[i].X {
				out = append(out, dagEdge{Path: curve(place[at], place[i]), Implied: true})
			}
		}
	}
	return out
}

func curve(from, to dagNode) string {
	x1, y1, x2, y2 := from.X+nodeWidth, from.Y+nodeHeight/2, to.X, to.Y+nodeHeight/2
	bend := max(30, (x2-x1)/2)
	return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2)
}

// clip shortens a text to n characters.
func clip(s string, n int) string {
	r := []rune(strings.TrimSpace(s))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}
