package runner

import "github.com/slipwayhq/slipway/internal/delivery"

// Coordinator hands out jobs and takes their reports; delivery.Coordinator
// states the contract.
type Coordinator = delivery.Coordinator
