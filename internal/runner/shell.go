package runner

import (
	"fmt"
	"path"
	"strings"
)

// DetectShell is the command that a job's container runs: bash where the image
// has it, else sh, reading the script from standard input. It is the official
// runner's.
const DetectShell = `if [ -x /usr/local/bin/bash ]; then
	exec /usr/local/bin/bash
elif [ -x /usr/bin/bash ]; then
	exec /usr/bin/bash
elif [ -x /bin/bash ]; then
	exec /bin/bash
elif [ -x /usr/local/bin/sh ]; then
	exec /usr/local/bin/sh
elif [ -x /usr/bin/sh ]; then
	exec /usr/bin/sh
elif [ -x /bin/sh ]; then
	exec /bin/sh
elif [ -x /busybox/sh ]; then
	exec /busybox/sh
else
	echo shell not found
	exit 1
fi

`

// jobEnvFile is the file, in the job's temporary folder, whose lines KEY=value
// later scripts of the job export: $GITLAB_ENV.
const jobEnvFile = "gitlab_runner_env"

// scriptText generates the shell script of user commands, for bash and any
// POSIX shell that understands $'...', as the official runner's bash shell
// does.
func scriptText(v Variables, projectDir string, notice string, lines []string, trace bool) string {
	var body strings.Builder
	tmp := v.tmp
	fmt.Fprintf(&body, "mkdir -p %s\n", shellQuote(tmp))
	for _, one := range v.All() {
		if !validName(one.Key) {
			continue
		}
		if one.File {
			file := path.Join(tmp, one.Key)
			fmt.Fprintf(&body, "printf '%%s' %s > %s\nexport %s=%s\n", shellQuote(one.Value), shellQuote(file), one.Key, shellQuote(file))
			continue
		}
		fmt.Fprintf(&body, "export %s=%s\n", one.Key, shellQuote(one.Value))
	}
	env := shellQuote(path.Join(tmp, jobEnvFile))
	fmt.Fprintf(&body, "touch %s\nwhile read -r line; do export \"$line\"; done < %s\n", env, env)
	fmt.Fprintf(&body, "cd %s\n", shellQuote(projectDir))
	if notice != "" {
		fmt.Fprintf(&body, "printf '%%s\\n' %s\n", shellQuote(ansiGreen+notice+ansiReset))
	}
	for _, line := range lines {
		line = strings.TrimSpace(line)
		first, _, more := strings.Cut(line, "\n")
		switch {
		case line == "":
			body.WriteString("echo\n")
		case more:
			fmt.Fprintf(&body, "printf '%%s\\n' %s\n", shellQuote(ansiGreen+"$ "+first+" # collapsed multi-line command"+ansiReset))
		default:
			fmt.Fprintf(&body, "printf '%%s\\n' %s\n", shellQuote(ansiGreen+"$ "+line+ansiReset))
		}
		body.WriteString(line + "\n")
	}
	const onTerm = "trap 'exit 1' TERM"
	var out strings.Builder
	out.WriteString("#!/usr/bin/env bash\n\n" + onTerm + "\n\n")
	if trace {
		out.WriteString("set -o xtrace\n")
	}
	out.WriteString(`case "$(set -o)" in *"pipefail"*) set -o pipefail;; esac; set -o errexit` + "\nset +o noclobber\n")
	out.WriteString("(" + onTerm + "; eval " + shellQuote(body.String()) + ") < /dev/null\nexit 0\n")
	return out.String()
}

// shellQuote quotes s for bash, busybox and dash alike where it can: single
// quotes for printable text; $'...' (not understood by dash before 0.5.13)
// would lose there, so control characters stay inside single quotes too.
func shellQuote(s string) string {
	if s == "" {
		return "''"
	}
	plain := true
	for _, c := range []byte(s) {
		if !strings.ContainsRune(",-./0123456789@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz", rune(c)) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
