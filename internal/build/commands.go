package build

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/slipwayhq/slipway/internal/toolwire"
)

// clientVersion is the version of docker whose command line is offered.
const clientVersion = "28.5.2"

// usageError is a command line that is wrong; docker ends with 125 for flags
// and with 1 for the rest.
type usageError struct {
	code int
	text string
}

func (e usageError) Error() string { return e.text }

// groups are the commands that have commands.
var groups = []string{"image", "builder", "buildx", "container", "manifest", "system", "context", "network", "volume", "imagetools"}

// docker dispatches a command line. What docker itself would take and this
// platform does by other means is accepted with a notice; what it cannot do is
// refused by name, with what to do instead.
func (e *endpoint) docker(ctx context.Context, s *toolwire.Session) error {
	args, host := globalFlags(s.Args)
	if err := ownHost(host, s.Env); err != nil {
		return err
	}
	if len(args) == 0 {
		fmt.Fprint(s.Stdout(), usage)
		return nil
	}
	name, rest := args[0], args[1:]
	if name == "help" && len(rest) > 0 {
		return help(s, rest)
	}
	for slices.Contains(groups, lastWord(name)) {
		rest, _ = globalFlags(rest) // such as --builder
		if len(rest) == 0 {
			return help(s, strings.Fields(name))
		}
		name, rest = name+" "+rest[0], rest[1:]
	}
	known, found := commands[name]
	if !found {
		return unknown(name)
	}
	c := &command{endpoint: e, Session: s, name: name, known: known, flags: pflag.NewFlagSet("docker "+name, pflag.ContinueOnError)}
	c.flags.SetOutput(s.Stdout())
	c.flags.Usage = func() {
		fmt.Fprintf(s.Stdout(), "\nUsage:  docker %s %s\n\n%s\n\nOptions:\n%s", name, known.arguments, known.about, c.flags.FlagUsages())
	}
	c.Session.Args = rest
	err := known.run(ctx, c)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	return err
}

func lastWord(text string) string { return text[strings.LastIndexByte(text, ' ')+1:] }

// instead says what to do in place of a command that is not offered.
var instead = map[string]string{
	"compose":     "declare the containers as services of the job, and build with docker build",
	"buildx bake": "call docker buildx build for each target",
	"stack":       "deploy to the platform's cluster with the release's manifests",
	"service":     "deploy to the platform's cluster with the release's manifests",
	"swarm":       "deploy to the platform's cluster with the release's manifests",
	"scout":       "use trivy image, which every job has",
	"sbom":        "use trivy image --format cyclonedx, which every job has",
	"commit":      "write a Dockerfile and use docker build",
	"import":      "write a Dockerfile with FROM scratch and ADD, and use docker build",
	"search":      "look for the image on the registry's own pages",
	"attach":      "use docker logs",
}

func unknown(name string) error {
	for prefix := name; prefix != ""; prefix = strings.TrimSuffix(strings.TrimSuffix(prefix, lastWord(prefix)), " ") {
		if way, found := instead[prefix]; found {
			return usageError{1, fmt.Sprintf("ERROR: docker %s is not offered in jobs, which have no docker daemon: %s", prefix, way)}
		}
	}
	return usageError{1, fmt.Sprintf("docker: '%s' is not a docker command of jobs.\nSee 'docker --help'", name)}
}

// help is docker help; docker's own images ask it whether a word is a command.
func help(s *toolwire.Session, words []string) error {
	name := strings.Join(words, " ")
	if known, found := commands[name]; found {
		fmt.Fprintf(s.Stdout(), "\nUsage:  docker %s %s\n\n%s\n", name, known.arguments, known.about)
		return nil
	}
	var list []string
	for other := range commands {
		if strings.HasPrefix(other, name+" ") {
			list = append(list, other)
		}
	}
	if len(list) == 0 {
		return usageError{1, "docker: unknown help topic: " + name}
	}
	slices.Sort(list)
	fmt.Fprintf(s.Stdout(), "\nUsage:  docker %s COMMAND\n\nCommands:\n", name)
	for _, other := range list {
		fmt.Fprintf(s.Stdout(), "  %-22s %s\n", other, commands[other].about)
	}
	return nil
}

const usage = `Usage:  docker [OPTIONS] COMMAND

The docker command of jobs: images are built by BuildKit and stored in the
platform's registry, without a docker daemon and without privileges.

Commands:
  build, buildx build        Build an image
  tag, push, pull            Name an image, move it to and from a registry
  login, logout              Sign in to a registry
  images, inspect, history   The images of this job
  rmi, save, load            Remove images, move them as archives
  manifest, buildx imagetools  Images of several platforms
  run, exec, logs, ps, stop  Containers beside the job
  create, cp, rm, wait       Containers and their files
  version, info

Example: docker build -t "$CI_REGISTRY_IMAGE:$CI_COMMIT_SHORT_SHA" . && docker push "$CI_REGISTRY_IMAGE:$CI_COMMIT_SHORT_SHA"
`

// globalFlags takes docker's flags before the command away; host is the daemon
// that they choose.
func globalFlags(args []string) (rest []string, host string) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		flag, value, joined := strings.Cut(args[0], "=")
		switch {
		case flag == "-v" || flag == "--version":
			return []string{"--version"}, host
		case flag == "-h" || flag == "--help":
			return nil, host
		case joined:
		case slices.Contains([]string{"-H", "--host", "--config", "-c", "--context", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey", "--builder"}, flag) && len(args) > 1:
			args = args[1:]
			value = args[0]
		}
		if flag == "-H" || flag == "--host" {
			host = value
		}
		args = args[1:]
	}
	return args, host
}

// ownHost refuses a daemon that is not the job's own: what is meant for another
// machine must not happen here. The services of a job have names without a dot.
func ownHost(host string, env map[string]string) error {
	if host == "" {
		host = env["DOCKER_HOST"]
	}
	if host == "" {
		return nil
	}
	target, err := url.Parse(host)
	if err != nil {
		return fmt.Errorf("DOCKER_HOST %q: %w", host, err)
	}
	name := target.Hostname()
	ip := net.ParseIP(name)
	switch {
	case target.Scheme == "unix", target.Scheme == "npipe", target.Scheme == "" || target.Opaque != "":
		return nil
	case target.Scheme != "ssh" && (!strings.Contains(name, ".") && ip == nil || ip.IsLoopback()):
		return nil
	}
	return fmt.Errorf("DOCKER_HOST names another machine (%s://%s), and the docker command of jobs works for this job alone: to steer that machine, "+
		"call the docker program of the job's image by its own path, such as /usr/bin/docker, or use ssh", target.Scheme, target.Host)
}

// parse reads the flags of the command and how many arguments are left; most
// is -1 for any number.
func (c *command) parse(least, most int) error {
	if err := c.flags.Parse(c.Args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		return usageError{125, fmt.Sprintf("%v\nSee 'docker %s --help'.", err, c.name)}
	}
	count := ""
	switch n := c.flags.NArg(); {
	case least == most && n != least:
		count = fmt.Sprintf("exactly %d argument", least)
	case n < least:
		count = fmt.Sprintf("at least %d argument", least)
	case most >= 0 && n > most:
		count = fmt.Sprintf("at most %d argument", most)
	default:
		return nil
	}
	if !strings.HasSuffix(count, " 1 argument") {
		count += "s"
	}
	return usageError{1, fmt.Sprintf("%q requires %s.\nSee 'docker %s --help'.\n\nUsage:  docker %[1]s %[4]s\n\n%s", "docker "+c.name, count, c.name, c.known.arguments, c.known.about)}
}

// known is a command that jobs may use.
type known struct {
	run              func(context.Context, *command) error
	arguments, about string
}

// commands are the command lines that jobs use.
var commands = map[string]known{
	"build": buildCommand, "image build": buildCommand, "builder build": buildCommand, "buildx build": buildCommand, "buildx b": buildCommand,
	"tag": tagCommand, "image tag": tagCommand,
	"push": pushCommand, "image push": pushCommand,
	"pull": pullCommand, "image pull": pullCommand,
	"login":  {login, "[OPTIONS] [SERVER]", "Sign in to a registry"},
	"logout": {logout, "[SERVER]", "Sign out from a registry"},
	"images": imagesCommand, "image ls": imagesCommand, "image list": imagesCommand,
	"inspect":       {inspectAny, "[OPTIONS] NAME|ID [NAME|ID...]", "Show what is known of images and containers"},
	"image inspect": {inspectImages, "[OPTIONS] IMAGE [IMAGE...]", "Show what is known of images"},
	"history":       historyCommand, "image history": historyCommand,
	"rmi": rmiCommand, "image rm": rmiCommand, "image remove": rmiCommand,
	"save": saveCommand, "image save": saveCommand,
	"load": loadCommand, "image load": loadCommand,
	"run": runCommand, "container run": runCommand, "create": createCommand, "container create": createCommand,
	"start": startCommand, "container start": startCommand, "stop": stopCommand, "container stop": stopCommand, "kill": stopCommand, "container kill": stopCommand,
	"rm": rmCommand, "container rm": rmCommand, "container remove": rmCommand, "wait": waitCommand, "container wait": waitCommand,
	"logs": logsCommand, "container logs": logsCommand, "exec": execCommand, "container exec": execCommand, "cp": cpCommand, "container cp": cpCommand,
	"container inspect": {inspectContainers, "[OPTIONS] CONTAINER [CONTAINER...]", "Show what is known of containers"},
	"network create":    {networkCreate, "[OPTIONS] NETWORK", "Nothing: all containers of a job share its network"}, "network rm": {echoNames, "NETWORK [NETWORK...]", "Nothing: networks end with the job"},
	"network ls": nothingCommand, "network inspect": nothingCommand, "network connect": nothingCommand, "network disconnect": nothingCommand,
	"ps": psCommand, "container ls": psCommand, "container list": psCommand,
	"manifest inspect":          {manifestInspect, "[OPTIONS] MANIFEST", "Show the manifest of an image in a registry"},
	"manifest create":           {manifestCreate, "MANIFEST_LIST MANIFEST [MANIFEST...]", "Gather images of several platforms under one name"},
	"manifest annotate":         {manifestAnnotate, "[OPTIONS] MANIFEST_LIST MANIFEST", "Say for which platform an image is"},
	"manifest push":             {manifestPush, "[OPTIONS] MANIFEST_LIST", "Push the list to its registry"},
	"manifest rm":               {manifestRemove, "MANIFEST_LIST [MANIFEST_LIST...]", "Forget lists"},
	"buildx imagetools inspect": {manifestInspect, "[OPTIONS] NAME", "Show an image in a registry"},
	"buildx imagetools create":  {imagetoolsCreate, "[OPTIONS] SOURCE [SOURCE...]", "Name images within their registry anew"},

	"--version": {versionLine, "", "Show the version"},
	"version":   {version, "[OPTIONS]", "Show the version"},
	"info":      infoCommand, "system info": infoCommand,
	"system df": {nothing, "", "Nothing: images end with the job"},

	"system prune": pruneCommand, "image prune": pruneCommand, "builder prune": pruneCommand, "buildx prune": pruneCommand, "volume prune": pruneCommand,
	"container prune": pruneCommand, "network prune": {nothing, "[OPTIONS]", "Nothing: networks end with the job"},

	"buildx create":  {builderCreate, "[OPTIONS] [CONTEXT|ENDPOINT]", "Name the platform's BuildKit"},
	"buildx inspect": {builderInspect, "[NAME]", "Show the platform's BuildKit"},
	"buildx ls":      {builderList, "", "Show the platform's BuildKit"},
	"buildx use":     nothingCommand, "buildx rm": nothingCommand, "buildx stop": nothingCommand, "buildx du": nothingCommand, "buildx install": nothingCommand,
	"buildx uninstall": nothingCommand,
	"buildx version":   {buildxVersion, "", "Show the version"},

	"context create": {contextCreate, "[OPTIONS] CONTEXT", "Take a name for the job's own endpoint"},
	"context use":    {contextUse, "CONTEXT", "Take a name for the job's own endpoint"},
	"context ls":     {contextList, "", "Show the only context"},
	"context show":   {contextShow, "", "Show the only context"},
	"context rm":     {echoNames, "CONTEXT [CONTEXT...]", "Forget names"}, "context inspect": nothingCommand, "context update": nothingCommand,
}

var (
	buildCommand   = known{buildImage, "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile"}
	tagCommand     = known{tagImage, "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"}
	pushCommand    = known{pushImages, "[OPTIONS] NAME[:TAG]", "Push an image or a repository to a registry"}
	pullCommand    = known{pullImages, "[OPTIONS] NAME[:TAG|@DIGEST]", "Pull an image or a repository from a registry"}
	imagesCommand  = known{listImages, "[OPTIONS] [REPOSITORY[:TAG]]", "List the images of this job"}
	historyCommand = known{history, "[OPTIONS] IMAGE", "Show the history of an image"}
	rmiCommand     = known{removeImages, "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images"}
	saveCommand    = known{saveImages, "[OPTIONS] IMAGE [IMAGE...]", "Save images to a tar archive (streamed to STDOUT by default)"}
	loadCommand    = known{loadImages, "[OPTIONS]", "Load images from a tar archive or STDIN"}
	runCommand     = known{runContainer, "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Run a container beside the job"}
	createCommand  = known{runContainer, "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Make a container without starting it"}
	startCommand   = known{startContainers, "[OPTIONS] CONTAINER [CONTAINER...]", "Start containers"}
	stopCommand    = known{stopContainers, "[OPTIONS] CONTAINER [CONTAINER...]", "End containers"}
	rmCommand      = known{removeContainers, "[OPTIONS] CONTAINER [CONTAINER...]", "Remove containers"}
	waitCommand    = known{waitContainers, "CONTAINER [CONTAINER...]", "Wait until containers end, and print their exit codes"}
	logsCommand    = known{containerLogs, "[OPTIONS] CONTAINER", "Show what a container wrote"}
	execCommand    = known{execContainer, "[OPTIONS] CONTAINER COMMAND [ARG...]", "Run a command in a running container"}
	cpCommand      = known{copyFiles, "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-", "Copy files out of a container"}
	psCommand      = known{listContainers, "[OPTIONS]", "List the containers of this job"}
	infoCommand    = known{info, "[OPTIONS]", "Show what stands in place of a docker daemon"}
	pruneCommand   = known{prune, "[OPTIONS]", "Nothing: images end with the job, and the cache keeps to its budget"}
	nothingCommand = known{nothing, "[OPTIONS] [NAME...]", "Nothing: there is one BuildKit, and it is used"}
)
