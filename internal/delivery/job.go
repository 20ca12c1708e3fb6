package delivery

// The job as a runner receives it. Names and shapes are those of the GitLab
// Runner protocol (`POST /api/v4/jobs/request`), so that one type serves the
// official runner over HTTP and the built-in runner in the process.

// JobSpec is one job, ready to be executed.
type JobSpec struct {
	ID            int64           `json:"id"`
	Token         string          `json:"token"`
	AllowGitFetch bool            `json:"allow_git_fetch"`
	JobInfo       JobInfo         `json:"job_info"`
	GitInfo       GitInfo         `json:"git_info"`
	RunnerInfo    JobRunnerInfo   `json:"runner_info"`
	Variables     []JobVariable   `json:"variables"`
	Steps         []JobStep       `json:"steps"`
	Image         *JobImage       `json:"image"`
	Services      []JobImage      `json:"services"`
	Artifacts     []JobArtifact   `json:"artifacts"`
	Cache         []JobCache      `json:"cache"`
	Credentials   []JobCredential `json:"credentials"`
	Dependencies  []JobDependency `json:"dependencies"`
	Features      JobFeatures     `json:"features"`
	Secrets       map[string]any  `json:"secrets,omitempty"`
	Hooks         []JobHook       `json:"hooks,omitempty"`
}

// JobInfo says what the job is.
type JobInfo struct {
	Name              string  `json:"name"`
	Stage             string  `json:"stage"`
	PipelineID        int64   `json:"pipeline_id"`
	ProjectID         int64   `json:"project_id"`
	ProjectName       string  `json:"project_name"`
	ProjectFullPath   string  `json:"project_full_path"`
	NamespaceID       int64   `json:"namespace_id"`
	RootNamespaceID   int64   `json:"root_namespace_id"`
	UserID            int64   `json:"user_id"`
	TimeInQueue       float64 `json:"time_in_queue_seconds"`
	RunningOnInstance string  `json:"project_jobs_running_on_instance_runners_count"`
	QueueSize         int64   `json:"queue_size"`
	QueueDepth        int64   `json:"queue_depth"`
}

// GitInfo says what to check out.
type GitInfo struct {
	RepoURL      string   `json:"repo_url"`
	ObjectFormat string   `json:"repo_object_format"`
	Ref          string   `json:"ref"`
	SHA          string   `json:"sha"`
	BeforeSHA    string   `json:"before_sha"`
	RefType      string   `json:"ref_type"` // "branch" or "tag"
	Refspecs     []string `json:"refspecs"`
	Depth        int      `json:"depth"` // 0: everything
	Protected    bool     `json:"protected"`
}

// JobRunnerInfo carries limits for the runner.
type JobRunnerInfo struct {
	Timeout int `json:"timeout"` // seconds
}

// JobVariable is one variable of the job's environment.
type JobVariable struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Public bool   `json:"public"`
	File   bool   `json:"file"`
	Masked bool   `json:"masked"`
	Raw    bool   `json:"raw"` // not expanded
}

// JobStep is a list of script lines with its conditions.
type JobStep struct {
	Name         string   `json:"name"` // script, after_script or release
	Script       []string `json:"script"`
	Timeout      int      `json:"timeout"` // seconds
	When         string   `json:"when"`    // on_success, on_failure, always
	AllowFailure bool     `json:"allow_failure"`
}

// JobImage is a container image of a job or of one of its services.
type JobImage struct {
	Name         string           `json:"name"`
	Alias        string           `json:"alias,omitempty"`
	Command      []string         `json:"command,omitempty"`
	Entrypoint   []string         `json:"entrypoint,omitempty"`
	Ports        []any            `json:"ports,omitempty"`
	Variables    []JobVariable    `json:"variables,omitempty"`
	PullPolicy   []string         `json:"pull_policy,omitempty"` // always, if-not-present, never
	ExecutorOpts *JobExecutorOpts `json:"executor_opts,omitempty"`
}

// JobExecutorOpts holds what `image:docker` and `image:kubernetes` say.
type JobExecutorOpts struct {
	Docker     *JobDockerOpts     `json:"docker,omitempty"`
	Kubernetes *JobKubernetesOpts `json:"kubernetes,omitempty"`
}

// JobDockerOpts are the keys of `image:docker`.
type JobDockerOpts struct {
	Platform string `json:"platform,omitempty"`
	User     string `json:"user,omitempty"`
}

// JobKubernetesOpts are the keys of `image:kubernetes`.
type JobKubernetesOpts struct {
	User string `json:"user,omitempty"`
}

// JobArtifact is one archive or report to upload.
type JobArtifact struct {
	Name      string   `json:"name,omitempty"`
	Untracked bool     `json:"untracked,omitempty"`
	Paths     []string `json:"paths"`
	Exclude   []string `json:"exclude,omitempty"`
	When      string   `json:"when,omitempty"` // on_success, on_failure, always
	Type      string   `json:"artifact_type"`  // archive, junit, cobertura, dotenv, ...
	Format    string   `json:"artifact_format"`
	ExpireIn  string   `json:"expire_in,omitempty"`
}

// JobCache is one cache to restore and save.
type JobCache struct {
	Key          string   `json:"key"`
	Untracked    bool     `json:"untracked,omitempty"`
	Policy       string   `json:"policy,omitempty"` // pull, push, pull-push
	Paths        []string `json:"paths"`
	When         string   `json:"when,omitempty"`
	FallbackKeys []string `json:"fallback_keys,omitempty"`
}

// JobCredential lets the job's environment pull images.
type JobCredential struct {
	Type     string `json:"type"` // "registry"
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// JobDependency is an earlier job whose artifacts are restored. It is skipped
// when the file name is empty.
type JobDependency struct {
	ID            int64           `json:"id"`
	Token         string          `json:"token"`
	Name          string          `json:"name"`
	ArtifactsFile JobArtifactFile `json:"artifacts_file"`
}

// JobArtifactFile names an artifacts archive and its size in bytes.
type JobArtifactFile struct {
	Filename string `json:"filename"`
	Size     int64  `json:"size"`
}

// JobFeatures tells the runner what this server understands.
type JobFeatures struct {
	TraceSections     bool     `json:"trace_sections"`
	TokenMaskPrefixes []string `json:"token_mask_prefixes"`
	FailureReasons    []string `json:"failure_reasons"`
}

// JobHook is a list of script lines run at a fixed point of the job.
type JobHook struct {
	Name   string   `json:"name"` // pre_get_sources_script
	Script []string `json:"script"`
}
