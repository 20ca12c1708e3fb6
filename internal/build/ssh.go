package build

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/moby/buildkit/session/sshforward"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// maxKey and maxAgentMessage bound what is read into memory (the latter is
// OpenSSH's own bound).
const (
	maxKey          = 100 << 10
	maxAgentMessage = 256 << 10
)

// sshServer gives build steps with --mount=type=ssh the agents of --ssh: keys of
// the job's files, or the agent that runs in the job, asked through the
// command.
type sshServer struct {
	sshforward.UnimplementedSSHServer
	command *command
	agents  map[string]sshAgent
}

// sshAgent is one of both.
type sshAgent struct {
	keys   agent.Agent
	socket string // in the job
}

// Register implements session.Attachable.
func (s *sshServer) Register(server *grpc.Server) { sshforward.RegisterSSHServer(server, s) }

// sshAgents reads --ssh default|ID[=SOCKET|KEY[,KEY]].
func (c *command) sshAgents(ctx context.Context, flags []string) (*sshServer, error) {
	server := &sshServer{command: c, agents: map[string]sshAgent{}}
	for _, text := range flags {
		id, paths, given := strings.Cut(text, "=")
		if !given || paths == "" {
			paths = c.Env["SSH_AUTH_SOCK"]
			if paths == "" {
				return nil, fmt.Errorf("--ssh %s: there is no SSH agent in this job (SSH_AUTH_SOCK is empty): start one with eval $(ssh-agent), or name a key: --ssh %[1]s=PATH", id)
			}
		}
		keys := agent.NewKeyring()
		one := sshAgent{keys: keys}
		for _, path := range strings.Split(paths, ",") {
			var raw strings.Builder
			if err := c.CopyFile(ctx, &limited{w: &raw, left: maxKey}, c.path(path)); err != nil {
				// A socket cannot be read; that it is one shows when it is asked.
				one = sshAgent{socket: c.path(path)}
				if _, err := c.AskAgent(ctx, one.socket, []byte{11}); err != nil {
					return nil, fmt.Errorf("--ssh %s: %s is neither a key nor an agent's socket: %w", id, path, err)
				}
				continue
			}
			key, err := ssh.ParseRawPrivateKey([]byte(raw.String()))
			if err != nil {
				return nil, fmt.Errorf("--ssh %s: key %s: %w", id, path, err)
			}
			if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
				return nil, fmt.Errorf("--ssh %s: key %s: %w", id, path, err)
			}
		}
		server.agents[id] = one
	}
	return server, nil
}

// CheckAgent implements sshforward.SSHServer.
func (s *sshServer) CheckAgent(_ context.Context, r *sshforward.CheckAgentRequest) (*sshforward.CheckAgentResponse, error) {
	id := r.ID
	if id == "" {
		id = sshforward.DefaultID
	}
	if _, found := s.agents[id]; !found {
		return nil, fmt.Errorf("no SSH agent %q: give docker build --ssh %[1]s", id)
	}
	return &sshforward.CheckAgentResponse{}, nil
}

// ForwardAgent implements sshforward.SSHServer.
func (s *sshServer) ForwardAgent(stream sshforward.SSH_ForwardAgentServer) error {
	id := sshforward.DefaultID
	given, _ := metadata.FromIncomingContext(stream.Context())
	if values := given[sshforward.KeySSHID]; len(values) > 0 && values[0] != "" {
		id = values[0]
	}
	one, found := s.agents[id]
	if !found {
		return fmt.Errorf("no SSH agent %q", id)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	served := make(chan error, 1)
	go func() {
		if one.socket == "" {
			served <- agent.ServeAgent(readOnlyAgent{one.keys}, theirs)
		} else {
			served <- s.relay(stream.Context(), one.socket, theirs)
		}
		theirs.Close()
	}()
	err := sshforward.Copy(stream.Context(), ours, stream, nil)
	ours.Close()
	if end := <-served; end != nil && !errors.Is(end, io.EOF) && !errors.Is(end, io.ErrClosedPipe) {
		return end
	}
	return err
}

// relay passes the messages of one connection on to the job's agent.
func (s *sshServer) relay(ctx context.Context, socket string, connection net.Conn) error {
	for {
		var size [4]byte
		if _, err := io.ReadFull(connection, size[:]); err != nil {
			return err
		}
		length := binary.BigEndian.Uint32(size[:])
		if length == 0 || length > maxAgentMessage {
			return errors.New("malformed message to the SSH agent")
		}
		message := make([]byte, length)
		if _, err := io.ReadFull(connection, message); err != nil {
			return err
		}
		answer, err := s.command.AskAgent(ctx, socket, message)
		if err != nil {
			return err
		}
		if _, err := connection.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)); err != nil {
			return err
		}
	}
}

// readOnlyAgent lets build steps use keys and not change them.
type readOnlyAgent struct{ agent.Agent }

var errReadOnly = errors.New("the keys of a build cannot be changed")

// Add refuses.
func (readOnlyAgent) Add(agent.AddedKey) error { return errReadOnly }

// Remove refuses.
func (readOnlyAgent) Remove(ssh.PublicKey) error { return errReadOnly }

// RemoveAll refuses.
func (readOnlyAgent) RemoveAll() error { return errReadOnly }

// Lock refuses.
func (readOnlyAgent) Lock([]byte) error { return errReadOnly }
