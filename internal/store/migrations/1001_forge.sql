-- What the forge keeps beside the repositories.

-- Pushes whose events are not stored yet; see forge.Recover.
CREATE TABLE pending_pushes (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id INTEGER NOT NULL,
  user_id    INTEGER NOT NULL,
  job_id     INTEGER NOT NULL,
  at         INTEGER NOT NULL,
  updates    TEXT    NOT NULL,
  options    TEXT    NOT NULL
);

CREATE TABLE protected_refs (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id  INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  tags        INTEGER NOT NULL,
  pattern     TEXT    NOT NULL,
  push_role   INTEGER NOT NULL,
  merge_role  INTEGER NOT NULL,
  allow_force INTEGER NOT NULL DEFAULT 0,
  created_at  INTEGER NOT NULL,
  UNIQUE (project_id, tags, pattern)
);

CREATE TABLE merge_requests (
  id                   INTEGER PRIMARY KEY AUTOINCREMENT,
  iid                  INTEGER NOT NULL,
  project_id           INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  source_project_id    INTEGER REFERENCES projects (id) ON DELETE SET NULL,
  source_branch        TEXT    NOT NULL,
  target_branch        TEXT    NOT NULL,
  title                TEXT    NOT NULL,
  description          TEXT    NOT NULL,
  state                TEXT    NOT NULL,
  draft                INTEGER NOT NULL,
  squash               INTEGER NOT NULL,
  remove_source_branch INTEGER NOT NULL,
  auto_merge           INTEGER NOT NULL DEFAULT 0,
  author_id            INTEGER NOT NULL,
  assignees            TEXT    NOT NULL DEFAULT '',
  reviewers            TEXT    NOT NULL DEFAULT '',
  labels               TEXT    NOT NULL DEFAULT '',
  head_sha             TEXT    NOT NULL,
  base_sha             TEXT    NOT NULL,
  start_sha            TEXT    NOT NULL,
  merge_status         TEXT    NOT NULL,
  merge_error          TEXT    NOT NULL DEFAULT '',
  merge_commit_sha     TEXT    NOT NULL DEFAULT '',
  squash_commit_sha    TEXT    NOT NULL DEFAULT '',
  merged_by_id         INTEGER NOT NULL DEFAULT 0,
  merged_at            INTEGER NOT NULL DEFAULT 0,
  closed_at            INTEGER NOT NULL DEFAULT 0,
  created_at           INTEGER NOT NULL,
  updated_at           INTEGER NOT NULL,
  UNIQUE (project_id, iid)
);
CREATE INDEX merge_requests_source ON merge_requests (source_project_id, source_branch, state);
CREATE INDEX merge_requests_state ON merge_requests (project_id, state, created_at);
CREATE INDEX merge_requests_author ON merge_requests (author_id, state);

CREATE TABLE merge_request_versions (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  merge_request_id INTEGER NOT NULL REFERENCES merge_requests (id) ON DELETE CASCADE,
  head_sha         TEXT    NOT NULL,
  base_sha         TEXT    NOT NULL,
  start_sha        TEXT    NOT NULL,
  created_at       INTEGER NOT NULL
);
CREATE INDEX merge_request_versions_request ON merge_request_versions (merge_request_id);

CREATE TABLE merge_request_approvals (
  merge_request_id INTEGER NOT NULL REFERENCES merge_requests (id) ON DELETE CASCADE,
  user_id          INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_at       INTEGER NOT NULL,
  PRIMARY KEY (merge_request_id, user_id)
);

CREATE TABLE notes (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id       INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  noteable_type    TEXT    NOT NULL,
  merge_request_id INTEGER REFERENCES merge_requests (id) ON DELETE CASCADE,
  noteable_iid     INTEGER NOT NULL DEFAULT 0,
  commit_sha       TEXT    NOT NULL DEFAULT '',
  discussion_id    TEXT    NOT NULL,
  individual       INTEGER NOT NULL,
  system           INTEGER NOT NULL DEFAULT 0,
  author_id        INTEGER NOT NULL,
  body             TEXT    NOT NULL,
  position         TEXT    NOT NULL DEFAULT '',
  resolvable       INTEGER NOT NULL DEFAULT 0,
  resolved_by      INTEGER NOT NULL DEFAULT 0,
  resolved_at      INTEGER NOT NULL DEFAULT 0,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL
);
CREATE INDEX notes_request ON notes (merge_request_id, id);
CREATE INDEX notes_commit ON notes (project_id, commit_sha);
CREATE INDEX notes_discussion ON notes (discussion_id);

CREATE TABLE releases (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id  INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  tag         TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  description TEXT    NOT NULL,
  author_id   INTEGER NOT NULL,
  sha         TEXT    NOT NULL,
  released_at INTEGER NOT NULL,
  created_at  INTEGER NOT NULL,
  UNIQUE (project_id, tag)
);

CREATE TABLE release_links (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  release_id INTEGER NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
  name       TEXT    NOT NULL,
  url        TEXT    NOT NULL,
  path       TEXT    NOT NULL DEFAULT '',
  link_type  TEXT    NOT NULL,
  UNIQUE (release_id, name)
);

CREATE TABLE hooks (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id    INTEGER REFERENCES projects (id) ON DELETE CASCADE,
  settings      TEXT    NOT NULL,
  token         TEXT    NOT NULL DEFAULT '',
  created_at    INTEGER NOT NULL,
  failing_since INTEGER NOT NULL DEFAULT 0,
  system        INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX hooks_project ON hooks (project_id);

CREATE TABLE hook_deliveries (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  hook_id          INTEGER NOT NULL REFERENCES hooks (id) ON DELETE CASCADE,
  event            TEXT    NOT NULL,
  uuid             TEXT    NOT NULL,
  url              TEXT    NOT NULL,
  request          TEXT    NOT NULL,
  status           INTEGER NOT NULL DEFAULT 0,
  request_headers  TEXT    NOT NULL DEFAULT '{}',
  response_headers TEXT    NOT NULL DEFAULT '{}',
  response         TEXT    NOT NULL DEFAULT '',
  error            TEXT    NOT NULL DEFAULT '',
  attempts         INTEGER NOT NULL DEFAULT 0,
  seconds          REAL    NOT NULL DEFAULT 0,
  created_at       INTEGER NOT NULL,
  next_at          INTEGER NOT NULL DEFAULT 0,
  UNIQUE (hook_id, uuid)
);
CREATE INDEX hook_deliveries_hook ON hook_deliveries (hook_id, id);
CREATE INDEX hook_deliveries_due ON hook_deliveries (next_at) WHERE next_at > 0;

CREATE TABLE lfs_objects (
  project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  oid        TEXT    NOT NULL,
  size       INTEGER NOT NULL,
  PRIMARY KEY (project_id, oid)
);
CREATE INDEX lfs_objects_oid ON lfs_objects (oid);

CREATE TABLE lfs_locks (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  user_id    INTEGER NOT NULL,
  path       TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  UNIQUE (project_id, path)
);

CREATE TABLE mirrors (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id     INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  push           INTEGER NOT NULL,
  url            TEXT    NOT NULL,
  username       TEXT    NOT NULL DEFAULT '',
  password       TEXT    NOT NULL DEFAULT '',
  enabled        INTEGER NOT NULL,
  only_protected INTEGER NOT NULL DEFAULT 0,
  interval_ms    INTEGER NOT NULL,
  next_at        INTEGER NOT NULL DEFAULT 0,
  last_at        INTEGER NOT NULL DEFAULT 0,
  last_success   INTEGER NOT NULL DEFAULT 0,
  last_error     TEXT    NOT NULL DEFAULT '',
  status         TEXT    NOT NULL DEFAULT 'none'
);
CREATE INDEX mirrors_project ON mirrors (project_id);
