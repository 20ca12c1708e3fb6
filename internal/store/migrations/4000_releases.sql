-- Manifest commits: what a commit of a GitOps repository deploys of which project.
CREATE TABLE release_manifests (
    config_project_id INTEGER NOT NULL,
    sha               TEXT NOT NULL,
    project_id        INTEGER NOT NULL,
    source_sha        TEXT NOT NULL,
    environment       TEXT NOT NULL,
    digest            TEXT NOT NULL,
    at                INTEGER NOT NULL,
    body              TEXT NOT NULL, -- JSON
    PRIMARY KEY (config_project_id, sha)
);
CREATE INDEX release_manifests_source ON release_manifests (project_id, source_sha);
CREATE INDEX release_manifests_at ON release_manifests (project_id, at);

-- Syncs of Argo CD applications, one for each revision.
CREATE TABLE release_syncs (
    application       TEXT NOT NULL,
    revision          TEXT NOT NULL,
    config_project_id INTEGER NOT NULL,
    started_at        INTEGER NOT NULL,
    body              TEXT NOT NULL, -- JSON
    PRIMARY KEY (application, revision)
);
CREATE INDEX release_syncs_project ON release_syncs (config_project_id, started_at);

-- Attempts to bring a version into an environment, with their steps and measurements.
CREATE TABLE release_attempts (
    id         INTEGER PRIMARY KEY,
    namespace  TEXT NOT NULL,
    rollout    TEXT NOT NULL,
    project_id INTEGER NOT NULL,
    sha        TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    settled    INTEGER NOT NULL, -- 1 when nothing of it changes any more
    body       TEXT NOT NULL     -- JSON
);
CREATE INDEX release_attempts_rollout ON release_attempts (namespace, rollout, id);
CREATE INDEX release_attempts_source ON release_attempts (project_id, sha);
CREATE INDEX release_attempts_open ON release_attempts (id) WHERE settled = 0;

-- Environments: who is served by which version.
CREATE TABLE release_environments (
    namespace  TEXT NOT NULL,
    rollout    TEXT NOT NULL,
    project_id INTEGER NOT NULL,
    body       TEXT NOT NULL, -- JSON
    PRIMARY KEY (namespace, rollout)
);
CREATE INDEX release_environments_project ON release_environments (project_id);
