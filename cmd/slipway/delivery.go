package main

import (
	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/instance"
)

// deliveryCommands are the commands of the stages.
func (a *app) deliveryCommands() []*cobra.Command {
	return nil
}

func inside() bool { return instance.Inside() }
