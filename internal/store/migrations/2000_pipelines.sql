-- Pipelines, jobs, and what runners and people do with them. Times are
-- milliseconds since the epoch, 0 for none; lists are JSON.
CREATE TABLE pipelines (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id       INTEGER NOT NULL,
  iid              INTEGER NOT NULL,
  ref              TEXT    NOT NULL,
  tag              INTEGER NOT NULL DEFAULT 0,
  sha              TEXT    NOT NULL,
  before_sha       TEXT    NOT NULL DEFAULT '',
  source           TEXT    NOT NULL,
  status           TEXT    NOT NULL,
  name             TEXT    NOT NULL DEFAULT '',
  user_id          INTEGER NOT NULL DEFAULT 0,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL,
  started_at       INTEGER NOT NULL DEFAULT 0,
  finished_at      INTEGER NOT NULL DEFAULT 0,
  yaml_errors      TEXT    NOT NULL DEFAULT '',
  failure_reason   TEXT    NOT NULL DEFAULT '',
  protected        INTEGER NOT NULL DEFAULT 0,
  merge_iid        INTEGER NOT NULL DEFAULT 0,
  schedule_id      INTEGER NOT NULL DEFAULT 0,
  parent_id        INTEGER NOT NULL DEFAULT 0,
  parent_job_id    INTEGER NOT NULL DEFAULT 0,
  child            INTEGER NOT NULL DEFAULT 0,
  on_new_commit    TEXT    NOT NULL DEFAULT '',
  on_job_failure   TEXT    NOT NULL DEFAULT '',
  auto_canceled_by INTEGER NOT NULL DEFAULT 0,
  uninterruptible  INTEGER NOT NULL DEFAULT 0,
  key              TEXT    NOT NULL,
  stages           TEXT    NOT NULL DEFAULT '[]',
  variables        TEXT    NOT NULL DEFAULT '[]',
  facts            TEXT    NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX pipelines_iid ON pipelines (project_id, iid);
CREATE INDEX pipelines_created ON pipelines (id) WHERE status = 'created';
CREATE UNIQUE INDEX pipelines_key ON pipelines (key);
CREATE INDEX pipelines_project ON pipelines (project_id, child, id);
CREATE INDEX pipelines_ref ON pipelines (project_id, ref, id);
CREATE INDEX pipelines_sha ON pipelines (project_id, sha);
CREATE INDEX pipelines_status ON pipelines (project_id, status, id);
CREATE INDEX pipelines_parent ON pipelines (parent_id) WHERE parent_id <> 0;
CREATE INDEX pipelines_merge ON pipelines (project_id, merge_iid, id) WHERE merge_iid <> 0;

CREATE TABLE pipeline_numbers (
  project_id INTEGER NOT NULL,
  kind       TEXT    NOT NULL,
  last       INTEGER NOT NULL,
  PRIMARY KEY (project_id, kind)
) WITHOUT ROWID;

CREATE TABLE jobs (
  id                 INTEGER PRIMARY KEY AUTOINCREMENT,
  pipeline_id        INTEGER NOT NULL,
  project_id         INTEGER NOT NULL,
  name               TEXT    NOT NULL,
  stage              TEXT    NOT NULL,
  stage_index        INTEGER NOT NULL,
  position           INTEGER NOT NULL,
  bridge             INTEGER NOT NULL DEFAULT 0,
  status             TEXT    NOT NULL,
  when_              TEXT    NOT NULL DEFAULT 'on_success',
  allow_failure      INTEGER NOT NULL DEFAULT 0,
  dag                INTEGER NOT NULL DEFAULT 0,
  needs              TEXT    NOT NULL DEFAULT '[]',
  tags               TEXT    NOT NULL DEFAULT '[]',
  resource_group     TEXT    NOT NULL DEFAULT '',
  interruptible      INTEGER NOT NULL DEFAULT 0,
  retried            INTEGER NOT NULL DEFAULT 0,
  attempt            INTEGER NOT NULL DEFAULT 0,
  user_id            INTEGER NOT NULL DEFAULT 0,
  created_at         INTEGER NOT NULL,
  queued_at          INTEGER NOT NULL DEFAULT 0,
  started_at         INTEGER NOT NULL DEFAULT 0,
  finished_at        INTEGER NOT NULL DEFAULT 0,
  scheduled_at       INTEGER NOT NULL DEFAULT 0,
  erased_at          INTEGER NOT NULL DEFAULT 0,
  runner_id          INTEGER NOT NULL DEFAULT 0,
  system_id          TEXT    NOT NULL DEFAULT '',
  failure_reason     TEXT    NOT NULL DEFAULT '',
  exit_code          INTEGER NOT NULL DEFAULT 0,
  coverage           REAL,
  environment        TEXT    NOT NULL DEFAULT '',
  environment_action TEXT    NOT NULL DEFAULT '',
  timeout            INTEGER NOT NULL DEFAULT 0,
  token_hash         TEXT    NOT NULL DEFAULT '',
  trace_size         INTEGER NOT NULL DEFAULT 0,
  downstream_id      INTEGER NOT NULL DEFAULT 0,
  retry_max          INTEGER NOT NULL DEFAULT 0,
  start_in           INTEGER NOT NULL DEFAULT 0,
  extra              TEXT    NOT NULL DEFAULT '{}',
  options            TEXT    NOT NULL DEFAULT '{}'
);
CREATE INDEX jobs_pipeline ON jobs (pipeline_id, retried, stage_index, position);
CREATE INDEX jobs_project ON jobs (project_id, id);
CREATE INDEX jobs_waiting ON jobs (status, id)
  WHERE status IN ('pending', 'running', 'canceling', 'scheduled', 'waiting_for_resource');
CREATE INDEX jobs_token ON jobs (token_hash) WHERE token_hash <> '';
CREATE INDEX jobs_resource ON jobs (project_id, resource_group) WHERE resource_group <> '';
CREATE INDEX jobs_runner ON jobs (runner_id, id) WHERE runner_id <> 0;

CREATE TABLE resource_groups (
  project_id INTEGER NOT NULL,
  key        TEXT    NOT NULL,
  mode       TEXT    NOT NULL DEFAULT 'unordered',
  PRIMARY KEY (project_id, key)
) WITHOUT ROWID;

CREATE TABLE job_reports (
  job_id INTEGER NOT NULL,
  kind   TEXT    NOT NULL,
  body   TEXT    NOT NULL,
  PRIMARY KEY (job_id, kind)
) WITHOUT ROWID;

CREATE TABLE artifacts (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id      INTEGER NOT NULL,
  pipeline_id INTEGER NOT NULL,
  project_id  INTEGER NOT NULL,
  type       TEXT    NOT NULL,
  format     TEXT    NOT NULL,
  filename   TEXT    NOT NULL,
  size       INTEGER NOT NULL,
  sha256     TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  expire_at  INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX artifacts_job ON artifacts (job_id, type);
CREATE INDEX artifacts_pipeline ON artifacts (pipeline_id);
CREATE INDEX artifacts_file ON artifacts (sha256);
CREATE INDEX artifacts_expiry ON artifacts (expire_at) WHERE expire_at <> 0;
CREATE INDEX artifacts_project ON artifacts (project_id, id);

CREATE TABLE runners (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  kind             TEXT    NOT NULL,
  owner_id         INTEGER NOT NULL DEFAULT 0,
  description      TEXT    NOT NULL DEFAULT '',
  token_hash       TEXT    NOT NULL UNIQUE,
  token_hint       TEXT    NOT NULL DEFAULT '',
  tags             TEXT    NOT NULL DEFAULT '[]',
  run_untagged     INTEGER NOT NULL DEFAULT 1,
  locked           INTEGER NOT NULL DEFAULT 0,
  paused           INTEGER NOT NULL DEFAULT 0,
  ref_protected    INTEGER NOT NULL DEFAULT 0,
  maximum_timeout  INTEGER NOT NULL DEFAULT 0,
  maintenance_note TEXT    NOT NULL DEFAULT '',
  builtin          INTEGER NOT NULL DEFAULT 0,
  creator_id       INTEGER NOT NULL DEFAULT 0,
  created_at       INTEGER NOT NULL,
  contacted_at     INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE runner_projects (
  runner_id  INTEGER NOT NULL REFERENCES runners (id) ON DELETE CASCADE,
  project_id INTEGER NOT NULL,
  PRIMARY KEY (runner_id, project_id)
) WITHOUT ROWID;
CREATE TABLE runner_managers (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  runner_id    INTEGER NOT NULL REFERENCES runners (id) ON DELETE CASCADE,
  system_id    TEXT    NOT NULL,
  info         TEXT    NOT NULL DEFAULT '{}',
  ip           TEXT    NOT NULL DEFAULT '',
  created_at   INTEGER NOT NULL,
  contacted_at INTEGER NOT NULL,
  UNIQUE (runner_id, system_id)
);

CREATE TABLE ci_variables (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  owner       TEXT    NOT NULL,
  owner_id    INTEGER NOT NULL,
  key         TEXT    NOT NULL,
  sealed      TEXT    NOT NULL,
  file        INTEGER NOT NULL DEFAULT 0,
  protected   INTEGER NOT NULL DEFAULT 0,
  masked      INTEGER NOT NULL DEFAULT 0,
  hidden      INTEGER NOT NULL DEFAULT 0,
  raw         INTEGER NOT NULL DEFAULT 0,
  environment TEXT    NOT NULL DEFAULT '*',
  description TEXT    NOT NULL DEFAULT '',
  UNIQUE (owner, owner_id, key, environment)
);

CREATE TABLE pipeline_schedules (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id       INTEGER NOT NULL,
  description      TEXT    NOT NULL,
  ref              TEXT    NOT NULL,
  cron             TEXT    NOT NULL,
  timezone         TEXT    NOT NULL,
  active           INTEGER NOT NULL DEFAULT 1,
  owner_id         INTEGER NOT NULL,
  next_run         INTEGER NOT NULL DEFAULT 0,
  variables        TEXT    NOT NULL DEFAULT '[]',
  last_pipeline_id INTEGER NOT NULL DEFAULT 0,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL
);
CREATE INDEX pipeline_schedules_project ON pipeline_schedules (project_id);
CREATE INDEX pipeline_schedules_next ON pipeline_schedules (next_run) WHERE active = 1;

CREATE TABLE pipeline_triggers (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id  INTEGER NOT NULL,
  description TEXT    NOT NULL,
  token_hash  TEXT    NOT NULL UNIQUE,
  token_hint  TEXT    NOT NULL,
  owner_id    INTEGER NOT NULL,
  created_at  INTEGER NOT NULL,
  last_used   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX pipeline_triggers_project ON pipeline_triggers (project_id);

CREATE TABLE ci_secrets (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  owner      TEXT    NOT NULL,
  owner_id   INTEGER NOT NULL,
  path       TEXT    NOT NULL,
  field      TEXT    NOT NULL,
  sealed     TEXT    NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (owner, owner_id, path, field)
);

CREATE TABLE environments (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id   INTEGER NOT NULL,
  name         TEXT    NOT NULL,
  slug         TEXT    NOT NULL,
  state        TEXT    NOT NULL DEFAULT 'available',
  tier         TEXT    NOT NULL DEFAULT 'other',
  external_url TEXT    NOT NULL DEFAULT '',
  description  TEXT    NOT NULL DEFAULT '',
  auto_stop_at INTEGER NOT NULL DEFAULT 0,
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  UNIQUE (project_id, name)
);
CREATE INDEX environments_stop ON environments (auto_stop_at) WHERE auto_stop_at <> 0;

CREATE TABLE deployments (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  iid            INTEGER NOT NULL,
  project_id     INTEGER NOT NULL,
  environment_id INTEGER NOT NULL,
  job_id         INTEGER NOT NULL UNIQUE,
  ref            TEXT    NOT NULL,
  tag            INTEGER NOT NULL DEFAULT 0,
  sha            TEXT    NOT NULL,
  status         TEXT    NOT NULL,
  user_id        INTEGER NOT NULL DEFAULT 0,
  on_stop        TEXT    NOT NULL DEFAULT '',
  created_at     INTEGER NOT NULL,
  updated_at     INTEGER NOT NULL,
  finished_at    INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX deployments_environment ON deployments (environment_id, id);
CREATE INDEX deployments_project ON deployments (project_id, id);

CREATE TABLE pipeline_settings (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
