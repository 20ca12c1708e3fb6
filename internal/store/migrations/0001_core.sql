-- The event outbox and the places of its consumers.
CREATE TABLE events (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  kind       TEXT    NOT NULL,
  project_id INTEGER NOT NULL DEFAULT 0,
  at         INTEGER NOT NULL,
  payload    TEXT    NOT NULL
);
CREATE INDEX events_project ON events (project_id, id);

CREATE TABLE event_consumers (
  name       TEXT    PRIMARY KEY,
  last_event INTEGER NOT NULL
);

-- Small values of the platform itself, such as generated keys' fingerprints.
CREATE TABLE settings (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
);
