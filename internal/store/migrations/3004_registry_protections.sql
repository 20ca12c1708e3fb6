CREATE TABLE registry_protections (
    id          INTEGER PRIMARY KEY,
    project_id  INTEGER NOT NULL,
    tags        INTEGER NOT NULL, -- of tags, else of repositories
    pattern     TEXT NOT NULL,    -- of repositories: below the project's path
    push_role   INTEGER NOT NULL,
    delete_role INTEGER NOT NULL,
    immutable   INTEGER NOT NULL,
    UNIQUE (project_id, tags, pattern)
);
