package pipeline

import "context"

func (e *Engine) parseReport(ctx context.Context, a *Artifact) {}
