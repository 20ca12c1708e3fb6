package node

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// ContainerdProbe asks containerd whether it serves. A process that hangs still
// accepts connections, which the kernel does for it, so only an answer counts.
// It is safe for concurrent use.
type ContainerdProbe struct {
	socket     string
	connection *grpc.ClientConn
}

// NewContainerdProbe returns a probe of the containerd behind a socket, which
// need not be there yet. It holds one connection, made by the first question.
func NewContainerdProbe(socket string) (*ContainerdProbe, error) {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A containerd that was started again is seen at once.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}}))
	if err != nil {
		return nil, fmt.Errorf("make a client for containerd: %w", err)
	}
	return &ContainerdProbe{socket, connection}, nil
}

// Serves returns nil when containerd answers before ctx ends that it serves. An
// error for want of an answer has ctx's own in its chain.
func (p *ContainerdProbe) Serves(ctx context.Context) error {
	answer, err := grpc_health_v1.NewHealthClient(p.connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if ctx.Err() != nil {
		return fmt.Errorf("containerd does not answer on %s: %w", p.socket, ctx.Err())
	}
	if status.Code(err) == codes.Unavailable {
		return fmt.Errorf("containerd does not answer on %s yet", p.socket)
	}
	if err != nil {
		return fmt.Errorf("ask containerd on %s: %w", p.socket, err)
	}
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("containerd is %s", answer.Status)
	}
	return nil
}

// Close ends the connection.
func (p *ContainerdProbe) Close() error { return p.connection.Close() }
