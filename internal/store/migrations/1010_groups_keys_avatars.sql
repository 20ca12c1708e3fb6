-- Tokens and webhooks of groups, keys that sign, pictures, and the addresses
-- that projects had before.
ALTER TABLE tokens ADD COLUMN group_id INTEGER REFERENCES namespaces (id) ON DELETE CASCADE;
CREATE INDEX tokens_group ON tokens (group_id);

ALTER TABLE hooks ADD COLUMN group_id INTEGER REFERENCES namespaces (id) ON DELETE CASCADE;
CREATE INDEX hooks_group ON hooks (group_id);

-- What a key is for: auth, signing or auth_and_signing.
ALTER TABLE ssh_keys ADD COLUMN usage TEXT NOT NULL DEFAULT 'auth_and_signing';

-- Users' OpenPGP keys. key_ids lists the fingerprints of the key and its
-- subkeys, in lower-case hexadecimal between spaces.
CREATE TABLE gpg_keys (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id     INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  fingerprint TEXT    NOT NULL UNIQUE,
  key_ids     TEXT    NOT NULL,
  emails      TEXT    NOT NULL,
  armored     TEXT    NOT NULL,
  created_at  INTEGER NOT NULL
);
CREATE INDEX gpg_keys_user ON gpg_keys (user_id);

-- Pictures of users, groups and projects.
CREATE TABLE avatars (
  kind       TEXT    NOT NULL,
  owner_id   INTEGER NOT NULL,
  media_type TEXT    NOT NULL,
  digest     TEXT    NOT NULL,
  body       BLOB    NOT NULL,
  PRIMARY KEY (kind, owner_id)
);

-- Where a project was before it was moved or renamed.
CREATE TABLE project_redirects (
  full_path_key TEXT    PRIMARY KEY,
  project_id    INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE
);
CREATE INDEX project_redirects_project ON project_redirects (project_id);
