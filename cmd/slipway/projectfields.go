package main

import (
	"context"
	"maps"

	"github.com/slipwayhq/slipway/internal/pipeline"
)

// projectFields are the fields of GitLab's project API that other stages than
// the forge keep: the settings of pipelines and the policy of images.
type projectFields struct {
	engine *pipeline.Engine
	p      *platform
}

// ProjectFields implements forge.CISettings.
func (f projectFields) ProjectFields(ctx context.Context, projectID int64) (map[string]any, error) {
	fields, err := f.engine.ProjectFields(ctx, projectID)
	if err != nil || f.p.registry == nil {
		return fields, err
	}
	images, err := f.p.registry.ProjectFields(ctx, projectID)
	maps.Copy(fields, images)
	return fields, err
}

// ChangeProjectFields implements forge.CISettings.
func (f projectFields) ChangeProjectFields(ctx context.Context, projectID int64, admin bool, decode func(any) error) error {
	err := f.engine.ChangeProjectFields(ctx, projectID, admin, decode)
	if err != nil || f.p.registry == nil {
		return err
	}
	return f.p.registry.ChangeProjectFields(ctx, projectID, decode)
}
