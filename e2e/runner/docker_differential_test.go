//go:build e2e

package runner_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/e2e/runner/dockerd"
	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// dockerCase is a script that both dockers run. Its output and exit code must be
// the same, but for what normal takes out.
type dockerCase struct {
	name, script string
	// exitOnly: the texts may differ, as both are for people.
	exitOnly bool
	// errs are texts that both must print, on either output.
	errs []string
}

// dockerCases are what scripts of pipelines do, the most usual first. Each runs
// in a folder of its own with a Dockerfile, and knows $REGISTRY and the image
// $APP that the first case builds.
var dockerCases = []dockerCase{
	{name: "build and push", script: `docker build -t "$APP" -t "$APP-second" . && docker push -q "$APP"`, exitOnly: true},
	{name: "version flag", script: `docker --version | cut -d' ' -f1-2; docker -v | cut -d' ' -f1-2`},
	{name: "version format", script: `docker version --format '{{.Server.Version}}' | grep -c '^[0-9]*\.'; docker version -f '{{.Client.Os}}/{{.Client.Arch}} {{.Server.Os}}'`},
	{name: "wait for the daemon", script: `until docker info >/dev/null 2>&1; do sleep 1; done; docker info --format '{{.OSType}} {{.Architecture}} {{.NCPU}}'`},
	{name: "help of the entrypoint", script: `docker help sh >/dev/null 2>&1; echo $?; docker help build >/dev/null; echo $?; docker build --help | head -1; docker --help | grep Usage`, exitOnly: true},
	{name: "unknown command", script: `docker frobnicate`},
	{name: "unknown flag", script: `docker build --frobnicate . 2>&1 | grep -o 'unknown flag: --frobnicate'; docker build --frobnicate .`},
	{name: "no arguments", script: `docker build; a=$?; docker push; b=$?; docker tag x; c=$?; docker rmi; d=$?; docker run; echo $a $b $c $d $?`},
	{name: "context create", script: `docker context create tls-env | head -1; docker context use tls-env | head -1; docker context use default >/dev/null; docker context rm tls-env`},
	{name: "images", script: `docker images --format '{{.Repository}}:{{.Tag}}' "$REPOSITORY"; docker images -q "$APP" | wc -c; docker images -q --no-trunc "$APP" | cut -c1-7; docker images -q nothing/here`},
	{name: "images table", script: `docker images --format 'table {{.Repository}}\t{{.Tag}}' "$REPOSITORY" | tr -s ' '`},
	{name: "images filter", script: `docker images --filter "reference=$REPOSITORY" --format '{{.Tag}}'; docker images --filter label=org.example=yes --format '{{.Tag}}' ; docker images -f reference='*/nothing*' -q`},
	{name: "one identity", script: `id=$(docker images -q --no-trunc "$APP"); test "$id" = "$(docker inspect -f '{{.Id}}' "$APP")" && docker inspect -f '{{.Id}}' "${id#sha256:}" >/dev/null && docker inspect -f same "$(docker images -q "$APP")"`},
	{name: "iidfile and quiet", script: `docker build -q --iidfile iid . > out; test "$(cat iid)" = "$(cat out)" && docker inspect -f '{{.Id}}' "$(cat iid)" | diff - iid | grep -c '^[<>] sha' ; docker run --rm "$(cat iid)" echo by-id`},
	{name: "inspect format", script: `docker inspect --format '{{.Config.Cmd}} {{.Config.WorkingDir}} {{index .Config.Labels "org.example"}} {{.Os}} {{.Architecture}} {{len .RootFS.Layers}} {{.RootFS.Type}}' "$APP"; docker inspect -f '{{json .Config.Env}} {{json .Config.ExposedPorts}}' "$APP"; docker image inspect -f '{{join .RepoTags ","}}' "$APP"`},
	{name: "inspect digest", script: `docker inspect --format '{{index .RepoDigests 0}}' "$APP" | cut -d@ -f1; docker inspect --format '{{.Created}}' "$APP" | cut -c1-2`},
	{name: "inspect missing field", script: `docker inspect -f '{{.Nothing}}' "$APP" 2>/dev/null`, exitOnly: true},
	{name: "inspect json", script: `docker inspect "$APP" | tr -d ' \n' | grep -o '"Cmd":\["cat","/greeting"\]' | head -1; docker inspect --format '{{json .RootFS}}' "$APP" | cut -c1-16`},
	{name: "missing image", script: `docker inspect nothing/here; echo $?; docker image inspect nothing/here 2>/dev/null; echo $?; docker push "$REGISTRY/nothing/here" >/dev/null 2>&1; echo $?; docker tag nothing/here x; echo $?; docker rmi nothing/here; echo $?; docker rmi -f nothing/here >/dev/null; echo $?`, exitOnly: true},
	{name: "push prints the digest", script: `docker tag "$APP" "$REPOSITORY:pushed"; docker push "$REPOSITORY:pushed" | grep -o '^pushed: digest: sha256:[0-9a-f]* size: '; docker push -q "$REPOSITORY:pushed"; docker push --all-tags -q "$REPOSITORY"`},
	{name: "push of a missing tag", script: `docker push "$REPOSITORY:never" 2>/dev/null; docker push "$REGISTRY/never/built"`, errs: []string{"An image does not exist locally with the tag: REGISTRY/never/built"}},
	{name: "pull", script: `docker rmi -f "$REPOSITORY:pushed" >/dev/null; docker pull "$REPOSITORY:pushed" | tail -2; docker pull -q "$REPOSITORY:pushed"; docker pull "$REPOSITORY:never" 2>/dev/null || echo missing`, errs: []string{"Status: ", "missing"}, exitOnly: true},
	{name: "pull all tags", script: `docker pull -q --all-tags "$REPOSITORY" && docker images --format '{{.Tag}}' "$REPOSITORY" | sort`},
	{name: "pull or true, cache from", script: `docker pull "$REPOSITORY:none" || true; docker build -q --cache-from "$REPOSITORY:none" --build-arg BUILDKIT_INLINE_CACHE=1 -t "$REPOSITORY:inline" . && docker push -q "$REPOSITORY:inline" && docker build -q --cache-from "$REPOSITORY:inline" -t again .`, exitOnly: true},
	{name: "login", script: `echo secret | docker login -u someone --password-stdin "$REGISTRY" 2>/dev/null; grep -c "$REGISTRY" "$DOCKER_CONFIG/config.json"; docker login -u someone -p secret "$REGISTRY" 2>&1 | grep -c 'WARNING! Using'; docker logout "$REGISTRY"; grep -c "$REGISTRY" "$DOCKER_CONFIG/config.json"; docker logout "$REGISTRY"`},
	{name: "build arguments", script: `GREETING=env docker build -q --build-arg GREETING -t args . >/dev/null && docker run --rm args; docker build -q --build-arg GREETING=flag -t args . >/dev/null && docker run --rm args cat /greeting`},
	{name: "target and file", script: `cp Dockerfile other.Dockerfile; rm Dockerfile; docker build -q --target first -f other.Dockerfile -t target . >/dev/null && docker run --rm target ls /only-first`},
	{name: "no dockerfile", script: `rm Dockerfile; docker build -t none .`, exitOnly: true},
	{name: "failing step", script: `printf 'FROM debian:bookworm-slim\nRUN echo the reason; exit 7\n' > Dockerfile; docker build .`, errs: []string{"the reason", "exit code: 7"}, exitOnly: true},
	{name: "bad dockerfile", script: `echo FORM x > Dockerfile; docker build .`, exitOnly: true},
	{name: "dockerfile from stdin", script: `printf 'FROM debian:bookworm-slim\nRUN echo in > /in\n' | docker build -q -t stdin - >/dev/null && docker run --rm stdin cat /in; printf 'FROM debian:bookworm-slim\nCOPY data.txt /\n' | docker build -q -t stdin -f - . >/dev/null && docker run --rm stdin cat /data.txt`},
	{name: "tar as context", script: `tar -c . | docker build -q -t tarred - >/dev/null && docker run --rm tarred; tar -cz . | docker build -q -t tarred - >/dev/null && docker run --rm tarred; mv Dockerfile D; tar -cz . | docker build -q -f D -t tarred - > /dev/null && docker run --rm tarred`},
	{name: "dockerignore", script: `printf '*\n!data.txt\n!sub/keep\n' > .dockerignore; mkdir sub; touch sub/keep sub/drop; printf 'FROM debian:bookworm-slim\nCOPY . /c\nCMD ["find", "/c", "-type", "f"]\n' > Dockerfile; docker build -q -t ignored . >/dev/null && docker run --rm ignored | sort; cp Dockerfile X; echo data.txt > X.dockerignore; docker build -q -f X -t ignored . >/dev/null && docker run --rm ignored | sort`},
	{name: "secrets", script: `printf 'FROM debian:bookworm-slim\nRUN --mount=type=secret,id=one --mount=type=secret,id=two cat /run/secrets/one /run/secrets/two > /s\n' > Dockerfile; printf file > one.txt; TWO=env docker build -q --secret id=one,src=one.txt --secret id=two,env=TWO -t secret . >/dev/null && docker run --rm secret cat /s`},
	{name: "labels", script: `docker build -q --label a=b --label "c=d e" -t labels . >/dev/null && docker inspect -f '{{index .Config.Labels "a"}} {{index .Config.Labels "c"}}' labels`},
	{name: "hosts, memory and limits", script: `printf 'FROM debian:bookworm-slim\nRUN grep example.test /etc/hosts | cut -f1 > /h; df -m /dev/shm | tail -1 | tr -s " " | cut -d" " -f2 > /shm\n' > Dockerfile; docker build -q --add-host example.test:192.0.2.7 --shm-size 128m --memory 1g -m 1g --ulimit nofile=1024:2048 -t hosts . >/dev/null && docker run --rm hosts cat /h /shm`, exitOnly: true},
	{name: "network of a build", script: `docker build -q --network host -t net . >/dev/null; echo $?; docker build -q --network none -t net . >/dev/null; echo $?; docker build -q --network default . >/dev/null; echo $?`},
	{name: "progress and pull flags", script: `docker build --progress plain --no-cache --rm --force-rm --compress -t flags . >/dev/null; echo $?`},
	{name: "local output", script: `printf 'FROM scratch\nCOPY data.txt /out/\n' > Dockerfile; docker build -q -o result . >/dev/null; cat result/out/data.txt; docker build -q -o type=tar,dest=result.tar . >/dev/null; tar -tf result.tar | grep data; docker build -q -o - . | tar -t | grep data`},
	{name: "an image of the same job", script: `printf 'FROM %s\nRUN echo more >> /greeting\n' "$APP" > Dockerfile; docker build -q -t child . > /dev/null && docker run --rm child; docker build -q -t base:local . >/dev/null; printf 'FROM base:local\nCMD ["echo", "grandchild"]\n' | docker build -q -t child - >/dev/null && docker run --rm child`},
	{name: "run", script: `docker run --rm "$APP"; docker run --rm debian:bookworm-slim sh -c 'exit 7'; echo $?; docker run --rm debian:bookworm-slim nothing-there 2>/dev/null; echo $?; docker run --rm debian:bookworm-slim /etc 2>/dev/null; echo $?; docker run --rm -i debian:bookworm-slim cat <<< input; echo ignored | docker run --rm debian:bookworm-slim cat`},
	{name: "run environment", script: `export FROM_ENV=here; printf '# c\nFILE_A=a b \nFROM_ENV\n' > env; docker run --rm -e A=1 --env B="two words" -e FROM_ENV -e UNSET_NAME --env-file env debian:bookworm-slim env | grep -E '^(A|B|FROM_ENV|FILE_A|UNSET_NAME)=' | sort | sed 's/$/|/'`},
	{name: "run volumes", script: `docker run --rm -v "$PWD:/x" -w /x debian:bookworm-slim sh -c 'cat data.txt; echo out > made'; cat made; docker run --rm -v "$PWD/data.txt:/d:ro" debian:bookworm-slim sh -c 'cat /d; echo x > /d' 2>/dev/null; echo $?; docker run --rm --mount "type=bind,source=$PWD,target=/y,readonly" debian:bookworm-slim cat /y/data.txt; docker run --rm -v "$PWD/fresh:/z" debian:bookworm-slim touch /z/file; ls fresh`},
	{name: "run entrypoint", script: `docker run --rm --entrypoint echo "$APP" given; docker run --rm --entrypoint pwd "$APP"; docker run --rm --entrypoint '' "$APP" echo cleared; docker run --rm --entrypoint=/bin/sh "$APP" -c 'echo shell'`},
	{name: "run user and folder", script: `docker run --rm -u 1000:1000 debian:bookworm-slim id -u; docker run --rm --user "$(id -u):$(id -g)" debian:bookworm-slim id -g; docker run --rm --workdir /made/up debian:bookworm-slim pwd; docker run --rm -w /tmp "$APP" pwd`},
	{name: "run flags", script: `docker run --rm --name one --hostname h --memory 256m --cpus 1 -m 128m --init --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --ulimit nofile=1024 --label a=b -l c=d --add-host x:192.0.2.1 --pull missing --platform linux/amd64 --network bridge --restart no --log-driver none --shm-size 64m --stop-timeout 1 -p 18080:80 --expose 81 --dns 192.0.2.53 debian:bookworm-slim hostname`, exitOnly: true},
	{name: "run privileges", script: `docker run --rm debian:bookworm-slim sh -c 'grep CapEff /proc/self/status; grep Seccomp: /proc/self/status'`},
	{name: "run with a lasting name", script: `docker run --name stays debian:bookworm-slim echo once >/dev/null; docker rm stays`},
	{name: "detached", script: `docker run -d --name server debian:bookworm-slim sh -c 'echo started; exec sleep 300' >/dev/null; docker ps --format '{{.Names}} {{.Image}} {{.State}}'; docker exec server echo inside; docker exec -e A=b -w /tmp server sh -c 'echo $A; pwd; exit 4'; echo $?; docker logs server; docker stop -t 1 server; docker ps -q | wc -l; docker ps -a --format '{{.Names}}'; docker rm server; docker ps -aq | wc -l`},
	{name: "detached, its name and end", script: `id=$(docker run -d --name short debian:bookworm-slim sh -c 'exit 3'); echo ${#id}; docker wait short; docker inspect -f '{{.State.ExitCode}} {{.State.Running}} {{.State.Status}} {{.Name}}' short; docker rm -f short; docker logs short 2>/dev/null; echo $?`},
	{name: "create and copy", script: `id=$(docker create "$APP"); docker cp "$id:/greeting" copied; cat copied; docker cp "$id:/etc/debian_version" - | tar -t; mkdir folder; docker cp "$id:/opt/folder" .; ls folder; docker cp "$id:/opt/folder/." folder; ls folder; docker rm -v "$id" | wc -c; docker cp "$id:/greeting" x 2>/dev/null; echo $?`},
	{name: "peers by name", script: `docker network create mine >/dev/null; echo $?; docker run -d --network mine --name peer debian:bookworm-slim sleep 100 >/dev/null; docker run --rm --network mine debian:bookworm-slim getent hosts peer | tr -s " " | cut -d" " -f2; docker rm -f peer; docker network rm mine`},
	{name: "save and load", script: `docker save -o image.tar "$APP"; docker rmi -f "$APP" >/dev/null 2>&1; docker load -i image.tar; docker save "$APP" | gzip > image.tgz; docker load < image.tgz; docker load -qi image.tgz; tar -xOf image.tar manifest.json | grep -o '"RepoTags":\["[^]]*\]'`},
	{name: "history", script: `docker history -q --no-trunc "$APP" | tail -1; docker history --format '{{.CreatedBy}}' --no-trunc "$APP" | head -1; docker history "$APP" | head -1 | tr -s ' '`},
	{name: "remove", script: `docker tag "$APP" gone:1; docker rmi gone:1; docker images -q gone; docker tag "$APP" gone:2; docker image rm -f gone:2 >/dev/null; echo $?; docker images -q gone:2`},
	{name: "prune", script: `docker image prune -f | tail -1; docker system prune -f | tail -1; docker container prune -f | tail -1; docker volume prune -f | tail -1; docker network prune -f; docker builder prune -f >/dev/null; echo $?; docker image prune -f --filter until=24h | tail -1`, exitOnly: true},
	{name: "manifest", script: `docker manifest inspect --insecure "$APP" | tr -d ' \n\t' | cut -c1-18; docker manifest inspect --insecure "$REPOSITORY:never" >/dev/null 2>&1 || echo missing; docker manifest create --insecure "$REPOSITORY:multi" "$APP" | sed 's/.*multi/multi/'; docker manifest annotate --os linux --arch amd64 "$REPOSITORY:multi" "$APP"; docker manifest push --insecure "$REPOSITORY:multi" | grep -o 'sha256:' ; docker manifest inspect --insecure "$REPOSITORY:multi" | grep -c '"architecture": "amd64"'`},
	{name: "hosts elsewhere", script: `docker -H ssh://nobody@nowhere.example ps >/dev/null 2>&1; test $? -ne 0; echo $?; DOCKER_HOST=tcp://nowhere.invalid.example:2376 docker ps >/dev/null 2>&1; test $? -ne 0; echo $?`},
}

// TestDockerDifferential runs the same scripts with the docker command of a job
// and with a real Docker Engine.
func TestDockerDifferential(t *testing.T) {
	registry := host.Registry(t)
	bench := host.Service(t, registry, nil)
	engine := dockerd.Start(t)
	engine.Load(t, host.Image(t), "debian:bookworm-slim")
	only := os.Getenv("DOCKER_CASES")

	spec := bench.Job("cd /builds && " + dockerScript(only))
	spec.Variables = []delivery.JobVariable{{Key: "REGISTRY", Value: registry, Public: true}, {Key: "SIDE", Value: "ours"}}
	job := bench.Do(spec)
	plain := runnertest.Plain(job.Trace)
	if job.Status != "success" {
		t.Fatal(plain)
	}
	ours := dockerResults(t, plain, registry, "ours")

	dir := t.TempDir()
	real := engine.Shell(dockerScript(only))
	real.Dir, real.Env = dir, append(real.Env, "REGISTRY="+registry, "SIDE=real")
	out, err := real.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	theirs := dockerResults(t, string(out), registry, "real")
	for i, one := range dockerCases {
		if only != "" && !strings.Contains(one.name, only) {
			continue
		}
		t.Run(strings.ReplaceAll(one.name, " ", "-"), func(t *testing.T) {
			a, b := ours[i], theirs[i]
			if a.code != b.code {
				t.Errorf("%s\nexit code %d, docker's is %d", one.script, a.code, b.code)
			}
			if !one.exitOnly && a.out != b.out {
				t.Errorf("%s\nprints\n%s\ndocker prints\n%s", one.script, a.out, b.out)
			}
			for _, text := range one.errs {
				for side, r := range map[string]dockerResult{"ours": a, "docker": b} {
					if !strings.Contains(r.out+r.errs, text) {
						t.Errorf("%s: no %q in\n%s%s", side, text, r.out, r.errs)
					}
				}
			}
			if t.Failed() {
				t.Logf("ours:\n%s%s\ndocker:\n%s%s", a.out, a.errs, b.out, b.errs)
			}
		})
	}
}

type dockerResult struct {
	code      int
	out, errs string
}

// dockerScript runs the cases one after the other and prints their results in a
// form that survives a trace.
func dockerScript(only string) string {
	var script strings.Builder
	fmt.Fprintf(&script, `mkdir -p work && cd work && export DOCKER_CONFIG="$PWD/config" REPOSITORY="$REGISTRY/$SIDE/app" APP="$REGISTRY/$SIDE/app:v1"
case_of() { rm -rf case; mkdir case; cd case; printf '%%s' "$DOCKERFILE" > Dockerfile; echo data > data.txt; code=0; timeout 60 bash -c "$2" >../out 2>../errs </dev/null || code=$?; cd ..; echo "@@ $1 $code $(base64 -w0 out) $(base64 -w0 errs) @@"; }
DOCKERFILE='%s'
`, dockerfile)
	for i, one := range dockerCases {
		if i == 0 || strings.Contains(one.name, only) {
			fmt.Fprintf(&script, "case_of %d \"$(echo %s | base64 -d)\"\n", i, base64.StdEncoding.EncodeToString([]byte(one.script)))
		}
	}
	return script.String()
}

const dockerfile = `FROM debian:bookworm-slim AS first
RUN touch /only-first
FROM debian:bookworm-slim
ARG GREETING=hello
LABEL org.example=yes
ENV A=b
EXPOSE 80
WORKDIR /srv
RUN echo "$GREETING" > /greeting && mkdir -p /opt/folder && touch /opt/folder/one
CMD ["cat", "/greeting"]
`

var (
	resultLine = regexp.MustCompile(`@@ (\d+) (\d+) (\S*) (\S*) @@`)
	hexes      = regexp.MustCompile(`\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b`)
)

func dockerResults(t *testing.T, output, registry, side string) map[int]dockerResult {
	t.Helper()
	results := map[int]dockerResult{}
	normal := func(encoded string) string {
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(raw), registry+"/"+side, "REGISTRY/side")
		return hexes.ReplaceAllString(strings.ReplaceAll(text, registry, "REGISTRY"), "HEX")
	}
	for _, match := range resultLine.FindAllStringSubmatch(output, -1) {
		i, _ := strconv.Atoi(match[1])
		code, _ := strconv.Atoi(match[2])
		results[i] = dockerResult{code: code, out: normal(match[3]), errs: normal(match[4])}
	}
	if len(results) == 0 {
		t.Fatalf("no results in\n%s", output)
	}
	if dir := os.Getenv("DOCKER_KEEP"); dir != "" {
		var text strings.Builder
		for i, one := range dockerCases {
			fmt.Fprintf(&text, "=== %s: %d\n%s--- errs\n%s\n", one.name, results[i].code, results[i].out, results[i].errs)
		}
		if err := os.WriteFile(filepath.Join(dir, side), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return results
}
