package supervise

import (
	"context"
	"errors"
)

// Func is a unit made of functions, for components within the process.
// ReadyFunc may be nil for one that is ready as soon as it runs.
type Func struct {
	RunFunc   func(ctx context.Context) error
	ReadyFunc func(ctx context.Context) error
}

// Run calls RunFunc; a nil one just waits.
func (f Func) Run(ctx context.Context) error {
	if f.RunFunc == nil {
		<-ctx.Done()
		return nil
	}
	err := f.RunFunc(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Ready calls ReadyFunc.
func (f Func) Ready(ctx context.Context) error {
	if f.ReadyFunc == nil {
		return nil
	}
	return f.ReadyFunc(ctx)
}
