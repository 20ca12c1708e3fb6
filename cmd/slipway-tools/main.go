// Command slipway-tools is kubectl, helm and kustomize in one program. It is
// chosen by the name it is called by (a link named kubectl) or by its first
// argument (slipway-tools kubectl ...).
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	helm "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	kustomize "sigs.k8s.io/kustomize/kustomize/v5/commands"
)

const usage = `slipway-tools holds the command-line tools of the cluster.

Usage:
  slipway-tools kubectl|helm|kustomize [arguments]

Example:
  slipway-tools kubectl get pods --all-namespaces

A link named kubectl, helm or kustomize runs that tool directly.
`

// tools maps a name to the tool's own main function; each exits by itself or
// returns its exit code.
var tools = map[string]func() int{
	"kubectl":   runKubectl,
	"helm":      runHelm,
	"kustomize": runKustomize,
}

func main() {
	if tool, found := tools[filepath.Base(os.Args[0])]; found {
		os.Exit(tool())
	}
	if len(os.Args) > 1 {
		if tool, found := tools[os.Args[1]]; found {
			// The tools name themselves and find their plugins by os.Args.
			os.Args = os.Args[1:]
			os.Exit(tool())
		}
		switch os.Args[1] {
		case "help", "-h", "--help":
			fmt.Print(usage)
			return
		}
		fmt.Fprintf(os.Stderr, "slipway-tools: unknown tool %q\n\n", os.Args[1])
	}
	fmt.Fprint(os.Stderr, usage)
	os.Exit(2)
}

func runKubectl() int {
	// The verbosity is needed before flags are parsed, while plugins and
	// preferences are read; a bad value is reported by the parser later.
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err) // prints kubectl's wording and exits
	}
	return 0
}

func runHelm() int {
	// The name under which changes are recorded must not be this program's.
	kube.ManagedFieldsManager = "helm"
	command, err := helm.NewRootCmd(os.Stdout, os.Args[1:], helm.SetupLogging)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		return 1
	}
	if err := command.Execute(); err != nil {
		if failed, ok := errors.AsType[helm.CommandError](err); ok {
			return failed.ExitCode
		}
		return 1
	}
	return 0
}

func runKustomize() int {
	if err := kustomize.NewDefaultCommand().Execute(); err != nil {
		return 1
	}
	return 0
}
