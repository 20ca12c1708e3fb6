CREATE TABLE scans (
    id         INTEGER PRIMARY KEY,
    project_id INTEGER NOT NULL,
    job_id     INTEGER NOT NULL,
    type       TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest     TEXT NOT NULL,
    name       TEXT NOT NULL,
    status     TEXT NOT NULL,
    error      TEXT NOT NULL,
    counts     TEXT NOT NULL,
    report     BLOB, -- JSON, compressed by gzip
    queued_at  INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL
);
CREATE INDEX scans_digest ON scans (digest, id);
CREATE INDEX scans_project ON scans (project_id, id);
CREATE INDEX scans_job ON scans (job_id) WHERE job_id <> 0;
CREATE INDEX scans_status ON scans (status, id) WHERE status IN ('pending', 'running');
