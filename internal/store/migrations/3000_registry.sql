CREATE TABLE registry_repositories (
    id         INTEGER PRIMARY KEY,
    project_id INTEGER NOT NULL,
    path       TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
);
CREATE INDEX registry_repositories_project ON registry_repositories (project_id);

CREATE TABLE registry_images (
    id            INTEGER PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES registry_repositories (id) ON DELETE CASCADE,
    digest        TEXT NOT NULL,
    media_type    TEXT NOT NULL,
    manifest_size INTEGER NOT NULL,
    artifact_type TEXT NOT NULL,
    subject       TEXT NOT NULL,
    os            TEXT NOT NULL,
    architecture  TEXT NOT NULL,
    variant       TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    labels        TEXT NOT NULL,
    annotations   TEXT NOT NULL,
    pushed_at     INTEGER NOT NULL,
    user_id       INTEGER NOT NULL,
    job_id        INTEGER NOT NULL,
    UNIQUE (repository_id, digest)
);
CREATE INDEX registry_images_digest ON registry_images (digest);
CREATE INDEX registry_images_subject ON registry_images (repository_id, subject) WHERE subject <> '';

CREATE TABLE registry_references (
    image_id   INTEGER NOT NULL REFERENCES registry_images (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size       INTEGER NOT NULL,
    platform   TEXT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (image_id, position)
);
CREATE INDEX registry_references_digest ON registry_references (digest);

CREATE TABLE registry_tags (
    repository_id INTEGER NOT NULL REFERENCES registry_repositories (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    digest        TEXT NOT NULL,
    pushed_at     INTEGER NOT NULL,
    user_id       INTEGER NOT NULL,
    job_id        INTEGER NOT NULL,
    PRIMARY KEY (repository_id, name)
);
CREATE INDEX registry_tags_digest ON registry_tags (repository_id, digest);

CREATE TABLE registry_policies (
    project_id  INTEGER PRIMARY KEY,
    enabled     INTEGER NOT NULL,
    cadence     INTEGER NOT NULL,
    keep_n      INTEGER NOT NULL,
    older_than  INTEGER NOT NULL,
    name_regex  TEXT NOT NULL,
    keep_regex  TEXT NOT NULL,
    next_run_at INTEGER NOT NULL
);
