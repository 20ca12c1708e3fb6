// Command slipway-guard keeps one program running where there is no systemd to
// do it: it starts the program again, with a growing pause, whenever that ends
// with an error or a signal, and ends when the program ends well or with exit
// status 4, which says that it was asked to stop and had trouble doing so.
//
//	slipway-guard PROGRAM [ARGUMENTS...]
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

const (
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
	steady     = 30 * time.Second // a run of this length resets the pause
	tooEarly   = 3 * time.Second  // a first run that fails so soon is not repeated
)

// stoppedWithTrouble is the exit status of a program that was asked to stop.
const stoppedWithTrouble = 4

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: slipway-guard PROGRAM [ARGUMENTS...]\nexample: slipway-guard bin/slipway up")
		os.Exit(2)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	pause := firstPause
	for first := true; ; first = false {
		began := time.Now()
		cmd := exec.Command(os.Args[1], os.Args[2:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stderr, "slipway-guard:", err)
			os.Exit(1)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		asked := false
		var err error
	wait:
		for {
			select {
			case sig := <-signals:
				asked = true
				if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
					fmt.Fprintln(os.Stderr, "slipway-guard:", err)
				}
			case err = <-ended:
				break wait
			}
		}
		if err == nil {
			return
		}
		if stopped := new(exec.ExitError); errors.As(err, &stopped) && stopped.ExitCode() == stoppedWithTrouble {
			os.Exit(stoppedWithTrouble)
		}
		// A program that refuses to start says why; repeating it does not help.
		var exit *exec.ExitError
		refused := first && time.Since(began) < tooEarly && errors.As(err, &exit) && exit.Exited()
		if asked || refused {
			os.Exit(1)
		}
		if time.Since(began) > steady {
			pause = firstPause
		}
		fmt.Fprintf(os.Stderr, "slipway-guard: %v; starting again in %s\n", err, pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-signals:
			timer.Stop()
			os.Exit(1)
		}
		pause = min(2*pause, lastPause)
	}
}
