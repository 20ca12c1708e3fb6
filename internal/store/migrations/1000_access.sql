-- Accounts, namespaces, projects and who may do what in them. Columns named
-- *_key hold lower-case values for comparison; times are milliseconds since
-- the Unix epoch, 0 for never.
CREATE TABLE users (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  username      TEXT    NOT NULL,
  username_key  TEXT    NOT NULL UNIQUE,
  name          TEXT    NOT NULL,
  email         TEXT    NOT NULL,
  email_key     TEXT    NOT NULL UNIQUE,
  password_hash TEXT    NOT NULL DEFAULT '',
  totp_secret   TEXT    NOT NULL DEFAULT '',
  totp_pending  TEXT    NOT NULL DEFAULT '',
  totp_last     INTEGER NOT NULL DEFAULT 0,
  admin         INTEGER NOT NULL DEFAULT 0,
  blocked       INTEGER NOT NULL DEFAULT 0,
  bot           INTEGER NOT NULL DEFAULT 0,
  created_at    INTEGER NOT NULL,
  last_sign_in  INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE recovery_codes (
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  hash    TEXT    NOT NULL,
  PRIMARY KEY (user_id, hash)
);

CREATE TABLE namespaces (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  kind          TEXT    NOT NULL,
  parent_id     INTEGER REFERENCES namespaces (id) ON DELETE CASCADE,
  owner_id      INTEGER REFERENCES users (id) ON DELETE CASCADE,
  path          TEXT    NOT NULL,
  full_path     TEXT    NOT NULL,
  full_path_key TEXT    NOT NULL UNIQUE,
  name          TEXT    NOT NULL,
  description   TEXT    NOT NULL DEFAULT '',
  visibility    TEXT    NOT NULL,
  created_at    INTEGER NOT NULL
);
CREATE INDEX namespaces_parent ON namespaces (parent_id);
CREATE INDEX namespaces_owner ON namespaces (owner_id);

CREATE TABLE projects (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  namespace_id   INTEGER NOT NULL REFERENCES namespaces (id),
  path           TEXT    NOT NULL,
  path_key       TEXT    NOT NULL,
  name           TEXT    NOT NULL,
  description    TEXT    NOT NULL DEFAULT '',
  visibility     TEXT    NOT NULL,
  default_branch TEXT    NOT NULL,
  empty          INTEGER NOT NULL DEFAULT 1,
  archived       INTEGER NOT NULL DEFAULT 0,
  creator_id     INTEGER NOT NULL,
  forked_from_id INTEGER REFERENCES projects (id) ON DELETE SET NULL,
  ci_config_path TEXT    NOT NULL DEFAULT '',
  settings       TEXT    NOT NULL DEFAULT '{}',
  created_at     INTEGER NOT NULL,
  last_activity  INTEGER NOT NULL,
  UNIQUE (namespace_id, path_key)
);
CREATE INDEX projects_activity ON projects (last_activity);
CREATE INDEX projects_fork ON projects (forked_from_id);

CREATE TABLE group_members (
  group_id   INTEGER NOT NULL REFERENCES namespaces (id) ON DELETE CASCADE,
  user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role       INTEGER NOT NULL,
  expires_at INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  created_by INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (group_id, user_id)
);
CREATE INDEX group_members_user ON group_members (user_id);

CREATE TABLE project_members (
  project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role       INTEGER NOT NULL,
  expires_at INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  created_by INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (project_id, user_id)
);
CREATE INDEX project_members_user ON project_members (user_id);

-- Which projects' jobs may act in a project with their tokens.
CREATE TABLE job_token_allowlist (
  project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  source_id  INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  push       INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (project_id, source_id)
);

-- Personal, project and deploy tokens; only a digest of the secret is kept.
CREATE TABLE tokens (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  kind       TEXT    NOT NULL,
  hash       TEXT    NOT NULL UNIQUE,
  user_id    INTEGER REFERENCES users (id) ON DELETE CASCADE,
  project_id INTEGER REFERENCES projects (id) ON DELETE CASCADE,
  name       TEXT    NOT NULL,
  username   TEXT    NOT NULL DEFAULT '',
  scopes     TEXT    NOT NULL,
  role       INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  created_by INTEGER NOT NULL DEFAULT 0,
  expires_at INTEGER NOT NULL DEFAULT 0,
  last_used  INTEGER NOT NULL DEFAULT 0,
  revoked_at INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tokens_user ON tokens (user_id);
CREATE INDEX tokens_project ON tokens (project_id);

CREATE TABLE sessions (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  hash       TEXT    NOT NULL UNIQUE,
  user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  address    TEXT    NOT NULL,
  agent      TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  last_seen  INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);

-- A user's SSH keys (user_id) and deploy keys of projects (project_id).
CREATE TABLE ssh_keys (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id     INTEGER REFERENCES users (id) ON DELETE CASCADE,
  project_id  INTEGER REFERENCES projects (id) ON DELETE CASCADE,
  title       TEXT    NOT NULL,
  public_key  TEXT    NOT NULL,
  fingerprint TEXT    NOT NULL UNIQUE,
  can_push    INTEGER NOT NULL DEFAULT 0,
  created_at  INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL DEFAULT 0,
  last_used   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX ssh_keys_user ON ssh_keys (user_id);
CREATE INDEX ssh_keys_project ON ssh_keys (project_id);

CREATE TABLE audit_events (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  at          INTEGER NOT NULL,
  actor_id    INTEGER NOT NULL,
  actor       TEXT    NOT NULL,
  address     TEXT    NOT NULL DEFAULT '',
  action      TEXT    NOT NULL,
  target_type TEXT    NOT NULL,
  target_id   INTEGER NOT NULL,
  target      TEXT    NOT NULL,
  details     TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX audit_events_target ON audit_events (target_type, target_id, id);
