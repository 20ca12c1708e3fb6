-- Where a note on a line was written, and the lines it was about; its position
-- follows the line through later versions of the merge request.
ALTER TABLE notes ADD COLUMN original_position TEXT NOT NULL DEFAULT '';
ALTER TABLE notes ADD COLUMN excerpt TEXT NOT NULL DEFAULT '';

-- What waits for a person's attention. An event makes at most one entry per
-- person and action, however often it is delivered.
CREATE TABLE todos (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id          INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  project_id       INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  merge_request_id INTEGER NOT NULL REFERENCES merge_requests (id) ON DELETE CASCADE,
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
CREATE INDEX todos_user ON todos (user_id, done, id);
CREATE INDEX todos_request ON todos (merge_request_id, user_id, done);

-- E-mail on its way.
CREATE TABLE mails (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  message_id TEXT    NOT NULL UNIQUE,
  user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  subject    TEXT    NOT NULL,
  body       TEXT    NOT NULL,
  thread     TEXT    NOT NULL,
  attempts   INTEGER NOT NULL DEFAULT 0,
  next_at    INTEGER NOT NULL,
  created_at INTEGER NOT NULL
);
CREATE INDEX mails_next ON mails (next_at);
