-- Every job that pushed an image: two pipelines may make the same one.
CREATE TABLE registry_image_jobs (
    image_id INTEGER NOT NULL REFERENCES registry_images (id) ON DELETE CASCADE,
    job_id   INTEGER NOT NULL,
    PRIMARY KEY (job_id, image_id)
) WITHOUT ROWID;
CREATE INDEX registry_image_jobs_image ON registry_image_jobs (image_id);
INSERT INTO registry_image_jobs (image_id, job_id) SELECT id, job_id FROM registry_images WHERE job_id <> 0;
DROP INDEX registry_images_job;
