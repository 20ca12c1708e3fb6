package pipeline

import (
	"context"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// PutSecret stores an entry of the secret store for the jobs of a project, of
// the projects below a group or of the whole instance. Jobs get it by naming
// path and field under secrets:. The value is not shown again.
func (e *Engine) PutSecret(ctx context.Context, owner string, ownerID int64, path, field, value string) error {
	path = strings.Trim(path, "/")
	if path == "" || field == "" || value == "" {
		return delivery.Errorf(delivery.Invalid, "path, field and value are needed")
	}
	s := Secret{Owner: owner, OwnerID: ownerID, Path: path, Field: field, Sealed: e.seal.Seal(value)}
	return e.store.Update(ctx, func(tx Tx) error { return tx.PutSecret(&s) })
}

// Secrets lists the names of entries; their values stay sealed.
func (e *Engine) Secrets(ctx context.Context, owner string, ownerID int64) ([]Secret, error) {
	var list []Secret
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		list, err = tx.Secrets(owner, ownerID)
		return err
	})
	for i := range list {
		list[i].Sealed = ""
	}
	return list, err
}

// DeleteSecret removes an entry; it is an error of kind NotFound when there is
// none of that number.
func (e *Engine) DeleteSecret(ctx context.Context, owner string, ownerID, id int64) error {
	return e.store.Update(ctx, func(tx Tx) error {
		list, err := tx.Secrets(owner, ownerID)
		if err != nil {
			return err
		}
		for _, s := range list {
			if s.ID == id {
				return tx.DeleteSecret(id)
			}
		}
		return &delivery.Error{Kind: delivery.NotFound, Message: "Secret Not Found"}
	})
}
