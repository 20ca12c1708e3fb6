package forge

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"golang.org/x/crypto/ssh"
)

const (
	sshHandshake   = 20 * time.Second
	sshIdle        = 10 * time.Minute
	maxSSHConns    = 500
	maxSSHPerHost  = 100
	maxSSHSessions = 8 // at once on one connection
)

// LoadHostKey reads the SSH host key from a file, or makes one there that only
// its owner can read.
func LoadHostKey(path string) (ssh.Signer, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("forge: make host key: %w", err)
		}
		block, err := ssh.MarshalPrivateKey(key, "slipway")
		if err != nil {
			return nil, fmt.Errorf("forge: make host key: %w", err)
		}
		raw = pem.EncodeToMemory(block)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			return nil, fmt.Errorf("forge: write host key: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("forge: read host key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("forge: read host key %s: %w", path, err)
	}
	return signer, nil
}

// sshServer serves git over SSH.
type sshServer struct {
	s      *Service
	config *ssh.ServerConfig
	slots  chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]string // with the remote host
}

// identityKey carries the identity through ssh.Permissions.
const identityKey = "slipway-identity"

// ServeSSH serves git over SSH on the listener until ctx ends; it then waits
// for running sessions, some seconds at the most.
func (s *Service) ServeSSH(ctx context.Context, l net.Listener, hostKey ssh.Signer) error {
	srv := &sshServer{s: s, slots: make(chan struct{}, max(16, 8*runtime.GOMAXPROCS(0))), conns: map[net.Conn]string{}}
	srv.config = &ssh.ServerConfig{
		ServerVersion: "SSH-2.0-Slipway",
		MaxAuthTries:  6,
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			who, err := s.access.AuthenticateKey(ctx, key)
			if err != nil {
				if delivery.KindOf(err) == delivery.InternalError {
					s.log.Error("SSH key not checked", "err", err)
				}
				return nil, errors.New("unknown key")
			}
			raw, err := json.Marshal(who)
			if err != nil {
				return nil, err
			}
			return &ssh.Permissions{Extensions: map[string]string{identityKey: string(raw)}}, nil
		},
	}
	srv.config.AddHostKey(hostKey)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return fmt.Errorf("forge: accept SSH: %w", err)
		}
		if !srv.admit(conn) {
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer srv.leave(conn)
			srv.serve(ctx, conn)
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		srv.closeAll()
		<-done
	}
	return ctx.Err()
}

func (v *sshServer) admit(c net.Conn) bool {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		host = c.RemoteAddr().String()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	same := 0
	for _, h := range v.conns {
		if h == host {
			same++
		}
	}
	if len(v.conns) >= maxSSHConns || same >= maxSSHPerHost {
		return false
	}
	v.conns[c] = host
	return true
}

func (v *sshServer) leave(c net.Conn) {
	c.Close()
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.conns, c)
}

func (v *sshServer) closeAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.conns {
		c.Close()
	}
}

// idleConn ends a connection on which nothing moves in either direction, once
// it has been told to: git may work for long while the client only listens.
type idleConn struct {
	net.Conn
	began atomic.Bool
}

// begin starts to count silence; deadlines set before no longer hold.
func (c *idleConn) begin() error {
	c.began.Store(true)
	return c.moved()
}

func (c *idleConn) moved() error {
	if !c.began.Load() {
		return nil
	}
	return c.SetDeadline(time.Now().Add(sshIdle))
}

func (c *idleConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		err = c.moved()
	}
	return n, err
}

func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.moved(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (v *sshServer) serve(ctx context.Context, raw net.Conn) {
	if err := raw.SetDeadline(time.Now().Add(sshHandshake)); err != nil {
		return
	}
	idle := &idleConn{Conn: raw}
	conn, channels, requests, err := ssh.NewServerConn(idle, v.config)
	if err != nil {
		return // scanners and wrong keys are daily business
	}
	defer conn.Close()
	if err := idle.begin(); err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	var who delivery.Identity
	if err := json.Unmarshal([]byte(conn.Permissions.Extensions[identityKey]), &who); err != nil {
		v.s.log.Error("SSH identity lost", "err", err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sessions := make(chan struct{}, maxSSHSessions)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for nc := range channels {
		if nc.ChannelType() != "session" {
			_ = nc.Reject(ssh.UnknownChannelType, "only sessions are served")
			continue
		}
		select {
		case sessions <- struct{}{}:
		default:
			_ = nc.Reject(ssh.ResourceShortage, "too many sessions on one connection")
			continue
		}
		ch, reqs, err := nc.Accept()
		if err != nil {
			<-sessions
			continue
		}
		wg.Go(func() {
			defer func() { <-sessions }()
			v.session(ctx, ch, reqs, who)
		})
	}
}

// session serves one command.
func (v *sshServer) session(ctx context.Context, ch ssh.Channel, reqs <-chan *ssh.Request, who delivery.Identity) {
	defer ch.Close()
	protocol := ""
	for req := range reqs {
		switch req.Type {
		case "env":
			var env struct{ Name, Value string }
			if ssh.Unmarshal(req.Payload, &env) == nil && env.Name == "GIT_PROTOCOL" {
				protocol = cleanProtocol(env.Value)
			}
			reply(req, true)
		case "exec":
			var cmd struct{ Command string }
			if ssh.Unmarshal(req.Payload, &cmd) != nil {
				reply(req, false)
				return
			}
			reply(req, true)
			go func() {
				for r := range reqs {
					reply(r, false)
				}
			}()
			v.finish(ch, v.run(ctx, ch, cmd.Command, protocol, who))
			return
		case "shell":
			reply(req, true)
			fmt.Fprintf(ch.Stderr(), "Welcome to Slipway, %s! There is no shell here; use git.\r\n", who.Name) //nolint:errcheck // the session ends anyway
			v.finish(ch, 0)
			return
		case "pty-req":
			reply(req, true)
		default:
			reply(req, false)
		}
	}
}

func reply(req *ssh.Request, ok bool) {
	if req.WantReply {
		_ = req.Reply(ok, nil) // a client that is gone needs no answer
	}
}

func (v *sshServer) finish(ch ssh.Channel, code uint32) {
	status := make([]byte, 4)
	binary.BigEndian.PutUint32(status, code)
	_ = ch.CloseWrite()
	_, _ = ch.SendRequest("exit-status", false, status)
}

// run serves a command and returns its exit status.
func (v *sshServer) run(ctx context.Context, ch ssh.Channel, command, protocol string, who delivery.Identity) uint32 {
	err := v.command(ctx, ch, command, protocol, who)
	if err == nil {
		return 0
	}
	var g *gitError
	if errors.As(err, &g) {
		return 128 // git has told the client itself
	}
	if delivery.KindOf(err) == delivery.InternalError && ctx.Err() == nil {
		v.s.log.Error("SSH command failed", "err", err)
	}
	fmt.Fprintf(ch.Stderr(), "Slipway: %s\r\n", delivery.UserMessage(err)) //nolint:errcheck // the session ends anyway
	return 1
}

func (v *sshServer) command(ctx context.Context, ch ssh.Channel, command, protocol string, who delivery.Identity) error {
	verb, path, more, err := parseSSHCommand(command)
	if err != nil {
		return err
	}
	p, role, err := v.s.access.VisibleProject(ctx, who, path)
	if err != nil {
		if delivery.IsNotFound(err) {
			return delivery.Errorf(delivery.NotFound, "The project you were looking for could not be found or you don't have permission to view it.")
		}
		return err
	}
	switch verb {
	case "git-lfs-authenticate":
		return v.lfsAuthenticate(ctx, ch, who, p, role, more)
	case "git-upload-archive":
		return delivery.Errorf(delivery.Unimplemented, "Archives are not served over SSH; download them from the project's page or the API.")
	}
	if verb == "git-receive-pack" {
		if _, err := v.s.authorizePush(ctx, who, p); err != nil {
			return err
		}
	} else if err := authorizeFetch(who, p, role); err != nil {
		return err
	}
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-time.After(slotWait):
		return delivery.Errorf(delivery.Unavailable, "The server is busy with other git operations; try again in a minute.")
	case <-ctx.Done():
		return ctx.Err()
	}
	t := transport{in: ch, out: ch, errOut: ch.Stderr(), protocol: protocol}
	if verb == "git-receive-pack" {
		return v.s.receivePack(ctx, who, p, t)
	}
	return v.s.uploadPack(ctx, p, t)
}

// lfsAuthenticate answers git-lfs-authenticate (git-lfs docs/api/
// server-discovery.md) with an address and credentials for an hour.
func (v *sshServer) lfsAuthenticate(ctx context.Context, ch ssh.Channel, who delivery.Identity, p delivery.Project, role delivery.Role, operation string) error {
	switch operation {
	case "download":
		if err := authorizeFetch(who, p, role); err != nil {
			return err
		}
	case "upload":
		if _, err := v.s.authorizePush(ctx, who, p); err != nil {
			return err
		}
	default:
		return delivery.Errorf(delivery.Invalid, "The operation is upload or download.")
	}
	token, err := v.s.lfsTokens.issue(who, p.FullPath, v.s.now().Add(lfsTokenLife))
	if err != nil {
		return err
	}
	basic := base64.StdEncoding.EncodeToString([]byte("lfs:" + token))
	return json.NewEncoder(ch).Encode(map[string]any{"href": v.s.HTTPURL(p) + "/info/lfs", "header": map[string]string{"Authorization": "Basic " + basic}, "expires_in": int(lfsTokenLife / time.Second)})
}

// parseSSHCommand reads "git-upload-pack '/group/app.git'", as git and LFS
// send it.
func parseSSHCommand(command string) (verb, project, more string, err error) {
	bad := delivery.Errorf(delivery.Forbidden, "Only git commands are served here.")
	if len(command) > 4096 {
		return "", "", "", bad
	}
	command = strings.TrimSpace(command)
	if rest, ok := strings.CutPrefix(command, "git "); ok {
		command = "git-" + rest
	}
	verb, rest, ok := strings.Cut(command, " ")
	switch verb {
	case "git-upload-pack", "git-receive-pack", "git-lfs-authenticate", "git-upload-archive":
	default:
		return "", "", "", bad
	}
	rest = strings.TrimSpace(rest)
	if !ok || rest == "" {
		return "", "", "", bad
	}
	if q := rest[0]; q == '\'' || q == '"' {
		end := strings.IndexByte(rest[1:], q)
		if end < 0 {
			return "", "", "", bad
		}
		rest, more = rest[1:end+1], rest[end+2:]
	} else if verb == "git-lfs-authenticate" {
		rest, more, _ = strings.Cut(rest, " ")
	}
	project = strings.TrimSuffix(strings.Trim(rest, "/"), ".git")
	if project == "" || strings.ContainsAny(project, "'\"\\\x00\n") || strings.HasPrefix(project, "-") {
		return "", "", "", bad
	}
	return verb, project, strings.TrimSpace(more), nil
}
