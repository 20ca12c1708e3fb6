package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// clusterNames makes the names of the cluster's Services known to this process,
// which runs outside of it. Upstream's controllers are pods: measurements ask
// http://app.shop.svc/value, and notifications go to such addresses. As in a
// pod, app.shop.svc and app.shop stand for app.shop.svc.cluster.local; all
// other names are this machine's affair.
type clusterNames struct {
	server string // host:port of the cluster's DNS
	domain string // such as cluster.local
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

// resolver returns the resolver that asks the cluster for its names.
func (n *clusterNames) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return &nameQuery{ctx: ctx, names: n, network: network, server: address}, nil
	}}
}

// answer asks the server that knows the name. server is the machine's own.
func (n *clusterNames) answer(ctx context.Context, network, server string, query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	if len(m.Questions) != 1 {
		return n.ask(ctx, network, server, query)
	}
	name := strings.ToLower(m.Questions[0].Name.String())
	switch {
	case strings.HasSuffix(name, ".svc."+n.domain+"."):
		return n.ask(ctx, network, n.server, query)
	case strings.HasSuffix(name, ".svc."):
		return n.askFor(ctx, network, m, name+n.domain+".")
	}
	answer, err := n.ask(ctx, network, server, query)
	if strings.Count(name, ".") != 2 || err == nil && !unknown(answer) {
		return answer, err
	}
	// service.namespace, which the machine's server does not know.
	if own, ownErr := n.askFor(ctx, network, m, name+"svc."+n.domain+"."); ownErr == nil && !unknown(own) {
		return own, nil
	}
	return answer, err
}

// askFor asks the cluster for another name and answers under the one in m.
func (n *clusterNames) askFor(ctx context.Context, network string, m dnsmessage.Message, full string) ([]byte, error) {
	short := m.Questions[0].Name
	name, err := dnsmessage.NewName(full)
	if err != nil {
		return nil, err
	}
	m.Questions[0].Name = name
	query, err := m.Pack()
	if err != nil {
		return nil, err
	}
	data, err := n.ask(ctx, network, n.server, query)
	if err != nil {
		return nil, err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(data); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", n.server, err)
	}
	for i := range answer.Questions {
		answer.Questions[i].Name = short
	}
	for i := range answer.Answers {
		if strings.EqualFold(answer.Answers[i].Header.Name.String(), full) {
			answer.Answers[i].Header.Name = short
		}
	}
	return answer.Pack()
}

// unknown reports whether an answer says that there is no such name.
func unknown(answer []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	return err == nil && h.RCode == dnsmessage.RCodeNameError
}

// ask sends one question over "udp" or "tcp" and returns its answer.
func (n *clusterNames) ask(ctx context.Context, network, server string, query []byte) ([]byte, error) {
	c, err := n.dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if at, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(at); err != nil {
			return nil, err
		}
	}
	if !strings.HasPrefix(network, "udp") {
		if _, err := c.Write(framed(query)); err != nil {
			return nil, err
		}
		return unframed(c)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buffer := make([]byte, 1<<16)
	for {
		size, err := c.Read(buffer)
		if err != nil {
			return nil, err
		}
		if size >= 2 && buffer[0] == query[0] && buffer[1] == query[1] { // else a late answer to somebody else
			return buffer[:size], nil
		}
	}
}

// framed puts a message's length before it, as DNS over streams has it.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

func unframed(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, message)
	return message, err
}

// nameQuery is the connection over which the resolver asks one question: a
// stream, whatever the network, to which the answer is written in the process.
type nameQuery struct {
	ctx     context.Context
	names   *clusterNames
	network string
	server  string
	until   time.Time
	answer  []byte // framed, what is left of it
}

func (q *nameQuery) Write(b []byte) (int, error) {
	if len(b) < 2 {
		return 0, errors.New("dns: question without a length")
	}
	ctx := q.ctx
	if !q.until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, q.until)
		defer cancel()
	}
	answer, err := q.names.answer(ctx, q.network, q.server, b[2:])
	if err != nil {
		return 0, err
	}
	q.answer = framed(answer)
	return len(b), nil
}

func (q *nameQuery) Read(b []byte) (int, error) {
	if len(q.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(b, q.answer)
	q.answer = q.answer[n:]
	return n, nil
}

func (q *nameQuery) Close() error                     { return nil }
func (q *nameQuery) LocalAddr() net.Addr              { return &net.UnixAddr{Net: "unix"} }
func (q *nameQuery) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: q.server, Net: "unix"} }
func (q *nameQuery) SetDeadline(t time.Time) error    { q.until = t; return nil }
func (q *nameQuery) SetReadDeadline(time.Time) error  { return nil }
func (q *nameQuery) SetWriteDeadline(time.Time) error { return nil }
