CREATE INDEX registry_images_job ON registry_images (job_id) WHERE job_id <> 0;
