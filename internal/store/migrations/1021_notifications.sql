-- How much e-mail a person wants: participating, mention or disabled.
CREATE TABLE notification_settings (
  user_id INTEGER PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  level   TEXT    NOT NULL
);
