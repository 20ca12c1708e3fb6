-- Comments that their authors hold back until they submit their review.
CREATE TABLE draft_notes (
  id                INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id        INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  merge_request_id  INTEGER NOT NULL REFERENCES merge_requests (id) ON DELETE CASCADE,
  noteable_iid      INTEGER NOT NULL,
  author_id         INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  discussion_id     TEXT    NOT NULL DEFAULT '', -- that it answers
  individual        INTEGER NOT NULL,
  resolvable        INTEGER NOT NULL,
  resolve           INTEGER NOT NULL DEFAULT 0,
  body              TEXT    NOT NULL,
  position          TEXT    NOT NULL DEFAULT '',
  original_position TEXT    NOT NULL DEFAULT '',
  excerpt           TEXT    NOT NULL DEFAULT '',
  created_at        INTEGER NOT NULL,
  updated_at        INTEGER NOT NULL
);
CREATE INDEX draft_notes_request ON draft_notes (merge_request_id, author_id, id);
CREATE INDEX draft_notes_author ON draft_notes (author_id);
CREATE INDEX draft_notes_project ON draft_notes (project_id);
