package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers on its end of a pipe with the addresses that it knows.
func nameServer(t *testing.T, known map[string][4]byte) net.Conn {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		buffer := make([]byte, 1<<16)
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(buffer[:n]); err != nil {
			t.Errorf("question: %v", err)
			return
		}
		q := m.Questions[0]
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		address, ok := known[q.Name.String()]
		switch {
		case !ok:
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5},
				Body:   &dnsmessage.AResource{A: address},
			}}
		}
		answer, err := m.Pack()
		if err != nil {
			t.Errorf("answer: %v", err)
			return
		}
		_, _ = server.Write(answer) // the client may have gone
	}()
	return client
}

func TestClusterNames(t *testing.T) {
	t.Parallel()
	n := &clusterNames{server: "cluster:53", domain: "cluster.local"}
	n.dial = func(_ context.Context, _, address string) (net.Conn, error) {
		if address == n.server {
			return nameServer(t, map[string][4]byte{"app.shop.svc.cluster.local.": {10, 43, 0, 7}, "example.org.svc.cluster.local.": {10, 43, 0, 9}}), nil
		}
		return nameServer(t, map[string][4]byte{"example.org.": {192, 0, 2, 1}}), nil
	}
	for name, want := range map[string]string{
		"app.shop.svc.cluster.local.": "10.43.0.7",
		"App.shop.svc.":               "10.43.0.7",
		"app.shop.":                   "10.43.0.7",
		"example.org.":                "192.0.2.1", // the machine's own names come first
	} {
		got, err := n.resolver().LookupHost(t.Context(), name)
		if err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %v %v, want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"other.shop.svc.", "other.shop.", "www.example.org."} {
		if got, err := n.resolver().LookupHost(t.Context(), name); err == nil || !strings.Contains(err.Error(), "no such host") {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}
