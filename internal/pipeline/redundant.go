package pipeline

// cancelRedundant cancels older pipelines of the ref, as their
// workflow:auto_cancel:on_new_commit allows.
func (u *unit) cancelRedundant(p *Pipeline) error {
	switch p.Source {
	case SourcePush, SourceMergeRequest, SourceWeb, SourceAPI, SourceTrigger:
	default:
		return nil
	}
	if p.Tag || p.Status == "skipped" {
		return nil
	}
	settings, err := projectSettings(u.tx, p.ProjectID)
	if err != nil || settings.AutoCancel == "disabled" {
		return err
	}
	child := false
	older, _, err := u.tx.Pipelines(PipelineFilter{ProjectID: p.ProjectID, Ref: p.Ref, BeforeID: p.ID, Child: &child, WithoutMany: true,
		Statuses: []string{"created", "waiting_for_resource", "preparing", "pending", "running", "scheduled"}}, Page{Limit: 100})
	if err != nil {
		return err
	}
	for _, old := range older {
		if old.SHA == p.SHA || old.Source == SourceSchedule {
			continue
		}
		switch old.OnNewCommit {
		case "none":
			continue
		case "interruptible":
			err = u.cancelPipeline(old.ID, p.ID, func(j *Job) bool { return j.Interruptible })
		default: // conservative
			if old.Uninterruptible {
				continue
			}
			err = u.cancelPipeline(old.ID, p.ID, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
