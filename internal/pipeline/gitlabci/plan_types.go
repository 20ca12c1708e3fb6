package gitlabci

// Pipeline is what one event would run. It is plain data: it encodes to JSON and back without loss.
//
// Durations (start_in, timeout, expire_in, auto_stop_in) keep the text of the file, which may hold
// variables; ParseDuration reads them. Texts that the runner or the state machine expands later
// (scripts, image, environment, cache key, ...) are kept unexpanded.
type Pipeline struct {
	// Run is false when workflow:rules, or the absence of any job, mean that no pipeline is created.
	Run bool `json:"run"`
	// Reason says why Run is false.
	Reason     string     `json:"reason,omitempty"`
	Name       string     `json:"name"`   // workflow:name, expanded; may be empty
	Stages     []string   `json:"stages"` // those that have jobs, in order
	AutoCancel AutoCancel `json:"auto_cancel"`
	Variables  Variables  `json:"variables,omitempty"` // global YAML variables with those of the matched workflow rule
	Jobs       []Job      `json:"jobs"`                // by stage, then in order of the file
}

// AutoCancel is workflow:auto_cancel with its defaults filled in.
type AutoCancel struct {
	OnNewCommit  string `json:"on_new_commit"`  // conservative, interruptible, none
	OnJobFailure string `json:"on_job_failure"` // none, all
}

// Job is one job of a Pipeline with everything the state machine and the runner protocol need.
type Job struct {
	Name       string `json:"name"`        // "test 1/3", "test: [a, b]"
	Group      string `json:"group"`       // the name in the file, before parallel
	Stage      string `json:"stage"`       // .pre and .post included
	StageIndex int    `json:"stage_index"` // index in Pipeline.Stages
	When       string `json:"when"`        // on_success, on_failure, always, manual, delayed
	StartIn    string `json:"start_in,omitempty"`

	AllowFailure          bool  `json:"allow_failure"`
	AllowFailureExitCodes []int `json:"allow_failure_exit_codes,omitempty"` // AllowFailure is false, these codes are allowed

	// Needs is nil when the job has no needs keyword and so waits for the earlier stages; an empty,
	// non-nil Needs starts at once. Entries are resolved to jobs of this plan: a need on a parallel
	// job is one entry per instance, an optional need on an absent job is gone.
	Needs []Need `json:"needs"`
	// CrossNeeds fetch artifacts from other pipelines or projects; they delay nothing.
	CrossNeeds []CrossNeed `json:"cross_needs,omitempty"`
	// Dependencies is nil for "all jobs of earlier stages (or all needs)", empty for none.
	Dependencies []string `json:"dependencies"`

	Tags          []string     `json:"tags"`
	Image         *Image       `json:"image"`
	Services      []Service    `json:"services,omitempty"`
	Variables     Variables    `json:"variables"` // global (as inherited), workflow rule, job, matrix, rule: merged, in order
	Script        []string     `json:"script"`    // before_script and script of one shell are kept apart here
	BeforeScript  []string     `json:"before_script,omitempty"`
	AfterScript   []string     `json:"after_script,omitempty"`
	PreGetSources []string     `json:"pre_get_sources_script,omitempty"` // hooks:pre_get_sources_script
	Artifacts     *Artifacts   `json:"artifacts,omitempty"`
	Cache         []Cache      `json:"cache,omitempty"`
	Coverage      string       `json:"coverage,omitempty"` // RE2 source without slashes
	Environment   *Environment `json:"environment,omitempty"`
	ResourceGroup string       `json:"resource_group,omitempty"`
	Interruptible *bool        `json:"interruptible,omitempty"` // nil: not said, which counts as false
	Retry         *Retry       `json:"retry,omitempty"`
	Timeout       string       `json:"timeout,omitempty"`

	// Parallel is set for an instance of a parallel or matrix job.
	Parallel *Parallel `json:"parallel,omitempty"`

	Trigger  *Trigger  `json:"trigger,omitempty"` // a bridge: no script, no runner
	Release  *Release  `json:"release,omitempty"`
	Pages    *Pages    `json:"pages,omitempty"`
	IDTokens []IDToken `json:"id_tokens,omitempty"`
	Secrets  []Secret  `json:"secrets,omitempty"`

	Inputs []JobInput `json:"inputs,omitempty"` // used as ${{ job.inputs.NAME }}, filled in by FillJobInputs

	ManualConfirmation string `json:"manual_confirmation,omitempty"`

	File string `json:"file,omitempty"` // where the job is written
	Line int    `json:"line,omitempty"`
}

// Need is a resolved needs entry. In JSON a need with artifacts, not optional, is its bare name.
type Need struct {
	Job       string
	Artifacts bool
	Optional  bool
}

// CrossNeed is needs:pipeline (with or without job) or needs:project.
type CrossNeed struct {
	Pipeline  string `json:"pipeline,omitempty"` // an upstream pipeline's ID, usually a variable
	Project   string `json:"project,omitempty"`
	Ref       string `json:"ref,omitempty"`
	Job       string `json:"job,omitempty"`
	Artifacts bool   `json:"artifacts"`
	// Mirror is true for needs:pipeline without job: the job takes the status of that pipeline.
	Mirror bool `json:"mirror,omitempty"`
}

// Parallel places a job among the instances of its group.
type Parallel struct {
	Index  int       `json:"index"` // from 1
	Total  int       `json:"total"`
	Matrix Variables `json:"matrix,omitempty"` // nil for a plain number
}

// Image is image: with its options. In JSON an image with a name only is its bare name.
type Image struct {
	Name       string
	Entrypoint []string // nil: the image's own
	PullPolicy []string // always, if-not-present, never
	Docker     *DockerOptions
	Kubernetes *KubernetesOptions
}

// DockerOptions are image:docker and services:docker.
type DockerOptions struct {
	Platform string `json:"platform,omitempty"`
	User     string `json:"user,omitempty"`
}

// KubernetesOptions are image:kubernetes and services:kubernetes.
type KubernetesOptions struct {
	User string `json:"user,omitempty"`
}

// Service is an entry of services:. In JSON a service with a name only is its bare name.
type Service struct {
	Image
	Alias     string // one or more names separated by spaces or commas
	Command   []string
	Variables Variables
}

// Artifacts is artifacts: with the default when filled in.
type Artifacts struct {
	Name      string   `json:"name,omitempty"`
	Paths     []string `json:"paths,omitempty"`
	Exclude   []string `json:"exclude,omitempty"`
	Untracked bool     `json:"untracked,omitempty"`
	When      string   `json:"when"` // on_success, on_failure, always
	ExpireIn  string   `json:"expire_in,omitempty"`
	ExposeAs  string   `json:"expose_as,omitempty"`
	Access    string   `json:"access,omitempty"` // all, developer, maintainer, none; "": all
	Reports   []Report `json:"reports,omitempty"`
}

// Report is one artifacts:reports entry. Type is the keyword, except that coverage_report becomes
// its format (cobertura, jacoco).
type Report struct {
	Type  string   `json:"type"`
	Paths []string `json:"paths"`
}

// Cache is one cache with its defaults filled in.
type Cache struct {
	Key          string   `json:"key"`                 // "" when KeyFiles are given; default "default"
	KeyFiles     []string `json:"key_files,omitempty"` // the key is a hash of the last commits that changed these
	KeyPrefix    string   `json:"key_prefix,omitempty"`
	Untracked    bool     `json:"untracked,omitempty"`
	Unprotect    bool     `json:"unprotect,omitempty"`
	Paths        []string `json:"paths,omitempty"`
	When         string   `json:"when"`   // on_success, on_failure, always
	Policy       string   `json:"policy"` // pull-push, pull, push, or a variable
	FallbackKeys []string `json:"fallback_keys,omitempty"`
}

// Environment is environment: with the default action filled in.
type Environment struct {
	Name           string `json:"name"`
	URL            string `json:"url,omitempty"`
	OnStop         string `json:"on_stop,omitempty"`
	Action         string `json:"action"` // start, prepare, stop, verify, access
	AutoStopIn     string `json:"auto_stop_in,omitempty"`
	DeploymentTier string `json:"deployment_tier,omitempty"` // production, staging, testing, development, other
	Kubernetes     bool   `json:"kubernetes,omitempty"`      // the job asks for access to the cluster
	Namespace      string `json:"namespace,omitempty"`       // kubernetes:namespace
}

// Retry is retry: with its defaults filled in.
type Retry struct {
	Max       int      `json:"max"`
	When      []string `json:"when"`
	ExitCodes []int    `json:"exit_codes,omitempty"`
}

// Trigger is a downstream pipeline: Project is set for another project, Include for a child.
type Trigger struct {
	Project  string           `json:"project,omitempty"`
	Branch   string           `json:"branch,omitempty"`
	Include  []TriggerInclude `json:"include,omitempty"`
	Strategy string           `json:"strategy,omitempty"` // "", depend, mirror
	Forward  Forward          `json:"forward"`
	Inputs   map[string]any   `json:"inputs,omitempty"`
}

// TriggerInclude names one file of a child pipeline.
type TriggerInclude struct {
	Local     string         `json:"local,omitempty"`
	Project   string         `json:"project,omitempty"`
	Ref       string         `json:"ref,omitempty"`
	File      []string       `json:"file,omitempty"`
	Template  string         `json:"template,omitempty"`
	Remote    string         `json:"remote,omitempty"`
	Component string         `json:"component,omitempty"`
	Artifact  string         `json:"artifact,omitempty"` // a file in the artifacts of Job
	Job       string         `json:"job,omitempty"`
	Inputs    map[string]any `json:"inputs,omitempty"`
}

// Forward says which variables a downstream pipeline gets.
type Forward struct {
	YAMLVariables     bool `json:"yaml_variables"`
	PipelineVariables bool `json:"pipeline_variables"`
}

// Release is release:; the runner's release step and the release are made from it.
type Release struct {
	TagName     string        `json:"tag_name"`
	TagMessage  string        `json:"tag_message,omitempty"`
	Name        string        `json:"name,omitempty"`
	Description string        `json:"description"` // text, or the path of a file that holds it
	Ref         string        `json:"ref,omitempty"`
	Milestones  []string      `json:"milestones,omitempty"`
	ReleasedAt  string        `json:"released_at,omitempty"`
	Links       []ReleaseLink `json:"links,omitempty"`
}

// ReleaseLink is release:assets:links.
type ReleaseLink struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	FilePath string `json:"filepath,omitempty"`
	LinkType string `json:"link_type,omitempty"`
}

// Pages marks a job that publishes a site.
type Pages struct {
	Publish    string `json:"publish"` // folder, default "public"
	PathPrefix string `json:"path_prefix,omitempty"`
	ExpireIn   string `json:"expire_in,omitempty"`
}

// IDToken is a signed JWT put into the variable Name.
type IDToken struct {
	Name string   `json:"name"`
	Aud  []string `json:"aud"`
}

// Secret is an entry of secrets:, put into the variable Name.
type Secret struct {
	Name     string         `json:"name"`
	Provider string         `json:"provider"` // vault, gcp_secret_manager, azure_key_vault, akeyless, aws_secrets_manager, gitlab_secrets_manager
	Settings map[string]any `json:"settings"` // the provider's own keys as written; vault's short form is expanded
	File     bool           `json:"file"`     // the variable holds a file's path (default) or the value
	Token    string         `json:"token,omitempty"`
}
