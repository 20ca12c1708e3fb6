package scan

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// option says what may be done with one of Trivy's flags in a job.
type option int

const (
	switchOption  option = iota // takes no value, or =true and =false
	valueOption                 // takes a value that names no file
	inputOption                 // takes a file of the job
	outputOption                // takes a file to write in the job
	ignoredOption               // takes a value; is the platform's business
	ignoredSwitch
)

// jobOptions are the flags that a job may use. All others are refused: they
// reach files, servers or sockets of the host, or fetch and store things.
var jobOptions = map[string]option{
	"format": valueOption, "output": outputOption, "severity": valueOption, "exit-code": valueOption, "exit-on-eol": valueOption,
	"ignore-unfixed": switchOption, "ignore-status": valueOption, "ignorefile": inputOption, "scanners": valueOption, "security-checks": valueOption,
	"pkg-types": valueOption, "vuln-type": valueOption, "pkg-relationships": valueOption, "list-all-pkgs": switchOption, "dependency-tree": switchOption,
	"table-mode": valueOption, "template": valueOption, "report": valueOption, "show-suppressed": switchOption, "compliance": valueOption,
	"misconfig-scanners": valueOption, "image-config-scanners": valueOption, "include-non-failures": switchOption, "include-dev-deps": switchOption,
	"skip-dirs": valueOption, "skip-files": valueOption, "file-patterns": valueOption, "secret-config": inputOption, "timeout": valueOption,
	"platform": valueOption, "removed-pkgs": switchOption, "detection-priority": valueOption, "vuln-severity-source": valueOption, "distro": valueOption,
	"license-full": switchOption, "license-confidence-level": valueOption, "ignored-licenses": valueOption, "render-cause": valueOption, "max-image-size": valueOption,
	"quiet": switchOption, "debug": switchOption, "no-progress": switchOption, "insecure": switchOption, "username": valueOption, "password": valueOption,
	"input": inputOption, "helm-values": inputOption, "tf-vars": inputOption, "help": switchOption, "version": switchOption,
	"cache-dir": ignoredOption, "db-repository": ignoredOption, "java-db-repository": ignoredOption, "checks-bundle-repository": ignoredOption,
	"image-src": ignoredOption, "cache-backend": ignoredOption, "parallel": ignoredOption, "cache-ttl": ignoredOption,
	"skip-db-update": ignoredSwitch, "skip-java-db-update": ignoredSwitch, "skip-check-update": ignoredSwitch, "skip-policy-update": ignoredSwitch,
	"offline-scan": ignoredSwitch, "skip-version-check": ignoredSwitch, "disable-telemetry": ignoredSwitch, "slow": ignoredSwitch, "light": ignoredSwitch,
}

var shortOptions = map[string]string{"f": "format", "o": "output", "s": "severity", "q": "quiet", "d": "debug", "t": "template", "h": "help", "v": "version"}

// jobCommands are the subcommands that a job may use, by all their names.
var jobCommands = map[string]string{
	"image": "image", "i": "image", "filesystem": "filesystem", "fs": "filesystem", "rootfs": "rootfs", "config": "config", "conf": "config",
	"repository": "filesystem", "repo": "filesystem", "sbom": "sbom", "convert": "convert", "version": "version", "help": "help",
}

// parse sorts the arguments into the subcommand, flags and targets.
func (r *jobRun) parse() error {
	args := r.call.Args
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			if r.command == "" {
				if r.command = jobCommands[arg]; r.command == "" {
					return refuse("the command %q is not available in jobs; use image, fs, rootfs, config, sbom or convert", arg)
				}
			} else {
				r.targets = append(r.targets, arg)
			}
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if long := shortOptions[name]; long != "" && !strings.HasPrefix(arg, "--") {
			name = long
		}
		kind, known := jobOptions[name]
		if !known {
			return refuse("the flag %s is not available in jobs", arg)
		}
		takesValue := kind != switchOption && kind != ignoredSwitch
		if takesValue && !hasValue {
			if i++; i == len(args) {
				return refuse("the flag %s needs a value", arg)
			}
			value = args[i]
		}
		if err := r.flag(name, kind, value, hasValue); err != nil {
			return err
		}
	}
	if r.command == "" {
		r.command = "help"
		if slices.Contains(r.flags, "--version") {
			r.command, r.flags = "version", nil
		}
	}
	return nil
}

func (r *jobRun) flag(name string, kind option, value string, hasValue bool) error {
	switch kind {
	case ignoredOption, ignoredSwitch:
		return nil
	case switchOption:
		if hasValue {
			r.flags = append(r.flags, "--"+name+"="+value)
		} else {
			r.flags = append(r.flags, "--"+name)
		}
		return nil
	}
	value, err := r.value(name, kind, value)
	if err == nil {
		r.flags = append(r.flags, "--"+name, value)
	}
	return err
}

// value translates what a flag or its variable is set to.
func (r *jobRun) value(name string, kind option, value string) (string, error) {
	switch {
	case kind == inputOption:
		local, err := r.fetch(value)
		if name == "ignorefile" {
			r.ignores = local
		}
		return local, err
	case kind == outputOption:
		if strings.HasPrefix(value, "plugin=") {
			return "", refuse("output plugins are not available in jobs")
		}
		inJob, err := r.inJob(value)
		if err != nil {
			return "", err
		}
		file := filepath.Join(r.work, fmt.Sprintf("output-%d", len(r.outputs)))
		r.outputs[file] = inJob
		return file, nil
	case name == "template" && strings.HasPrefix(value, "@"):
		local, err := r.fetch(value[1:])
		return "@" + local, err
	case name == "compliance" && strings.HasPrefix(value, "@"):
		local, err := r.fetch(value[1:])
		return "@" + local, err
	}
	return value, nil
}

// environment passes the job's TRIVY_ variables on by the rules of the flags
// that they stand for.
func (r *jobRun) environment() ([]string, error) {
	var env []string
	for key, value := range r.call.Env {
		name, ok := strings.CutPrefix(key, "TRIVY_")
		if !ok || value == "" {
			continue
		}
		if name == "NON_SSL" {
			env = append(env, key+"="+value)
			continue
		}
		flag := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		kind, known := jobOptions[flag]
		if !known {
			return nil, refuse("the variable %s is not available in jobs", key)
		}
		if kind == ignoredOption || kind == ignoredSwitch {
			continue
		}
		if kind != switchOption {
			var err error
			if value, err = r.value(flag, kind, value); err != nil {
				return nil, err
			}
		}
		env = append(env, key+"="+value)
	}
	if r.command == "image" {
		if r.call.Env["TRIVY_USERNAME"] == "" && r.call.Username != "" {
			env = append(env, "TRIVY_USERNAME="+r.call.Username, "TRIVY_PASSWORD="+r.call.Password)
		}
		if r.s.cfg.RegistryInsecure && r.call.Env["TRIVY_NON_SSL"] == "" {
			env = append(env, "TRIVY_NON_SSL=true")
		}
	}
	return env, nil
}

// arguments is the command line.
func (r *jobRun) arguments() ([]string, error) {
	if r.command == "help" || r.command == "version" {
		return append([]string{r.command}, r.targets...), nil
	}
	// A trivy.yaml among the copied files must not be read: it can set
	// anything.
	config := filepath.Join(r.work, "config.yaml")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	args := append([]string{r.command, "--config", "../config.yaml", "--cache-dir", r.s.cacheDir()}, r.flags...)
	if r.command != "convert" {
		args = append(args, "--skip-version-check", "--disable-telemetry")
		if r.command != "config" {
			args = append(args, "--offline-scan", "--parallel", "1", "--skip-db-update", "--skip-java-db-update")
		}
		if r.command != "sbom" {
			args = append(args, "--skip-check-update")
		}
	}
	if r.command == "image" && len(r.targets) == 1 {
		return append(args, "--input", r.targets[0]), nil
	}
	return append(args, r.targets...), nil
}
