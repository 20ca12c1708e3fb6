package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/config"
	"github.com/slipwayhq/slipway/internal/delivery"
)

const unitPath = "/etc/systemd/system/slipway.service"

// unit restarts the platform should it ever end, and leaves pods alone on
// restarts and upgrades: only `slipway down` stops them.
const unit = `[Unit]
Description=Slipway, the delivery platform for one server
Documentation=https://github.com/slipwayhq/slipway
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart=%[1]s up%[2]s
ExecStop=%[1]s down --keep-workloads%[2]s
KillMode=process
Delegate=yes
Restart=always
RestartSec=2
LimitNOFILE=1048576
TasksMax=infinity
TimeoutStopSec=120

[Install]
WantedBy=multi-user.target
`

func (a *app) installCommand() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:     "install",
		Short:   "Install a systemd unit that starts the platform at boot",
		Long:    "Write " + unitPath + ", enable and start it. Needs systemd.\nWhere there is none, use: slipway up --detach",
		Example: "  slipway install\n  slipway install --print",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			flags := ""
			for _, f := range a.flags() {
				flags += " " + f
			}
			text := fmt.Sprintf(unit, self, flags)
			if dry {
				fmt.Fprint(c.OutOrStdout(), text)
				return nil
			}
			if _, err := os.Stat("/run/systemd/system"); err != nil {
				return &delivery.Error{Kind: delivery.Unimplemented, Message: "This machine is not run by systemd.", Next: "Use: slipway up --detach"}
			}
			if err := os.WriteFile(unitPath, []byte(text), 0o644); err != nil {
				return fmt.Errorf("install: %w", err)
			}
			for _, args := range [][]string{{"daemon-reload"}, {"enable", "--now", "slipway.service"}} {
				if b, err := exec.CommandContext(c.Context(), "systemctl", args...).CombinedOutput(); err != nil {
					return fmt.Errorf("systemctl %s: %w: %s", args[0], err, bytes.TrimSpace(b))
				}
			}
			fmt.Fprintln(c.OutOrStdout(), "Installed and started. See: slipway status")
			return nil
		},
	}
	cmd.Flags().BoolVar(&dry, "print", false, "only print the unit")
	return cmd
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show and check the configuration", Example: "  slipway config print\n  slipway config check"}
	cmd.AddCommand(&cobra.Command{
		Use: "print", Short: "Print every key, documented, with its default", Args: cobra.NoArgs,
		Example: "  slipway config print > /etc/slipway/config.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write(config.Defaults())
			return err
		},
	}, &cobra.Command{
		Use: "check", Short: "Check the configuration file", Args: cobra.NoArgs, Example: "  slipway config check --config my.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			path := a.configPath
			if path == "" {
				path = config.DefaultPath
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is right; data in %s, budgets %s with headroom.\n", path, filepath.Clean(s.DataDir), megabytes(s.Budgets.Total()))
			return nil
		},
	})
	return cmd
}
