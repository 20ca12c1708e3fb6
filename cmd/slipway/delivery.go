package main

import (
	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/ci"
)

// deliveryCommands are the commands of the stages.
func (a *app) deliveryCommands() []*cobra.Command {
	return []*cobra.Command{ci.New(ci.WithPlaces(a.ciPlace)), a.demoCommand()}
}
