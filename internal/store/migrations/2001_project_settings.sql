-- What a project says about its pipelines; a project without a row has the
-- defaults. The body is JSON (pipeline.ProjectSettings).
CREATE TABLE ci_project_settings (
  project_id INTEGER PRIMARY KEY,
  body       TEXT NOT NULL
);

-- A resource group is asked for its open jobs only.
DROP INDEX jobs_resource;
CREATE INDEX jobs_resource ON jobs (project_id, resource_group, status) WHERE resource_group <> '';
