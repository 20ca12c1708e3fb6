package cluster

import (
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// An etcd that was killed before it was a member of its cluster begins again;
// one that has served, or may have, keeps what it has.
func TestRemoveUnborn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		state   raftpb.HardState
		entries []raftpb.Entry
		extra   string // a file beside the log
		kept    bool
	}{
		"killed at once":             {},
		"killed before the commit":   {entries: []raftpb.Entry{{Term: 1, Index: 1, Type: raftpb.EntryConfChange}}},
		"a member":                   {state: raftpb.HardState{Term: 1, Commit: 1}, entries: []raftpb.Entry{{Term: 1, Index: 1, Type: raftpb.EntryConfChange}}, kept: true},
		"marked":                     {extra: "served", kept: true},
		"with a snapshot":            {extra: "member/snap/0000000000000002-0000000000001389.snap", kept: true},
		"with a later part of a log": {extra: "member/wal/0000000000000001-0000000000001000.wal", kept: true},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "member", "snap"), 0o700); err != nil {
			t.Fatal(err)
		}
		w, err := wal.Create(zap.NewNop(), filepath.Join(dir, "member", "wal"), []byte("metadata"))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Save(test.state, test.entries); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if test.extra != "" {
			if err := os.WriteFile(filepath.Join(dir, test.extra), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := removeUnborn(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "member", "wal")); (err == nil) != test.kept {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := removeUnborn(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("a first start: %v", err)
	}
}
