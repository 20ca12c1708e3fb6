package gitlabci

// Context holds the facts of the event a pipeline would run for. Compile needs it for
// include:rules and variables in include paths, Plan for everything else. The zero value is a push
// to no branch with nothing defined.
type Context struct {
	// Predefined are the variables of the specification that are persisted before the pipeline
	// exists (CI_COMMIT_*, CI_PROJECT_*, CI_PIPELINE_SOURCE, ...). The caller builds them; this
	// package adds those that depend on the job (CI_JOB_NAME, CI_JOB_STAGE, CI_NODE_*,
	// CI_ENVIRONMENT_*, ...) while it evaluates its rules.
	Predefined map[string]string

	// Configured returns project, group and instance variables, already merged by precedence and
	// filtered by protection, for an environment name; "" is a job without environment. May be nil.
	Configured func(environment string) Variables

	// Pipeline are the variables of a manual run, schedule, trigger, API call or upstream pipeline.
	// They override everything else.
	Pipeline Variables

	// Inputs are values for spec:inputs of the root file: string, bool, int, float64 or []any. A
	// string is also accepted as the text of a number, boolean or array.
	Inputs map[string]any

	Source       string // CI_PIPELINE_SOURCE: push, web, schedule, merge_request_event, parent_pipeline, ...
	Ref          string // short name of branch or tag
	Tag          bool   // Ref is a tag
	MergeRequest bool   // a merge request pipeline: only:/except: refs and the default filter differ

	// ChangedPaths lists the files an event changed, for rules:changes and only:changes; compareTo
	// is empty or the ref named by compare_to. known is false when the question has no meaning (no
	// push event, a new branch): the condition is then true. An error becomes a diagnostic. A nil
	// function is the same as one that answers known = false.
	ChangedPaths func(compareTo string) (paths []string, known bool, err error)

	// Kubernetes reports whether the project has a cluster, for only:kubernetes and except:kubernetes.
	Kubernetes bool
}
