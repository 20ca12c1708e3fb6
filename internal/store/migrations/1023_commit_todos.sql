-- What waits for a person can be about a commit too.
CREATE TABLE todos_new (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id          INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  project_id       INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  merge_request_id INTEGER REFERENCES merge_requests (id) ON DELETE CASCADE,
  commit_sha       TEXT    NOT NULL DEFAULT '', -- without a merge request
  commit_title     TEXT    NOT NULL DEFAULT '',
  note_id          INTEGER NOT NULL DEFAULT 0,
  author_id        INTEGER NOT NULL,
  action           TEXT    NOT NULL,
  body             TEXT    NOT NULL,
  event_id         INTEGER NOT NULL,
  done             INTEGER NOT NULL DEFAULT 0,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL,
  UNIQUE (user_id, action, event_id)
);
INSERT INTO todos_new (id, user_id, project_id, merge_request_id, note_id, author_id, action, body, event_id, done, created_at, updated_at)
  SELECT id, user_id, project_id, merge_request_id, note_id, author_id, action, body, event_id, done, created_at, updated_at FROM todos;
DROP TABLE todos;
ALTER TABLE todos_new RENAME TO todos;
CREATE INDEX todos_user ON todos (user_id, done, id);
CREATE INDEX todos_request ON todos (merge_request_id, user_id, done);
