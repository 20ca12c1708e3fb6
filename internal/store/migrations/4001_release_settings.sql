-- What a project wants of its releases, such as reverting after an abort.
CREATE TABLE release_settings (
    project_id INTEGER PRIMARY KEY,
    body       TEXT NOT NULL -- JSON
);
