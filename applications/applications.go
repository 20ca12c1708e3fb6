// Package applications holds the sample application and its GitOps repository
// as files, for `slipway demo` to push.
package applications

import "embed"

// Files has one folder per repository: sample-fastapi-app and gitops-configs.
//
//go:embed all:sample-fastapi-app all:gitops-configs
var Files embed.FS
